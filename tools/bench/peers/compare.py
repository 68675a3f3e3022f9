#!/usr/bin/env python3
"""Checks that all peers give the same scores, times them in turn and prints the table: see README.md."""

import argparse
import json
import os
import pathlib
import random
import shlex
import subprocess
import sys

import numpy as np

# Of float32 scores of the same request, by two engines. hilomoe-convert bounds the rounding of one evaluation of this
# model at 9.3e-6; two of them differ by 1e-6 to 2e-6.
BOUND = 1e-5
LEAST_DEVIATION = 0.05  # of the scores of a model that can tell a wrong engine from a right one
CANDIDATES = (1, 10, 100, 1000)
GRAPHS = {"flat_fp32": "fp32, flat rows", "split_fp32": "fp32, split by hand",
          "flat_int8": "int8 dynamic, flat rows", "split_int8": "int8 dynamic, split by hand"}

WIDTH = 49  # of a label


class Peer:
    """A process that answers one line of JSON with another."""

    def __init__(self, name, command):
        self.name = name
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        described = self.ask(do="describe")
        self.version, self.rows = described["version"], described["rows"]

    def ask(self, **question):
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError):
            sys.exit(f"{self.name} ended while it was asked {question}")


class Row:
    def __init__(self, peer, row, label, reduced_by=None):
        self.peer, self.row, self.label, self.reduced_by = peer, row, label, reduced_by
        self.float32 = "fp32" in row or row in ("float32", "float32_ids")
        self.ns = {N: [] for N in CANDIDATES}

    def score(self, directory):
        path = directory / f"{self.peer.name}.{self.row}.scores".replace(" ", "_")
        self.peer.ask(do="score", row=self.row, output=str(path))
        return np.fromfile(path, np.float32)

    def time(self, N, ms):
        self.ns[N].append(self.peer.ask(do="time", row=self.row, candidates=N, ms=ms)["ns"])

    def net(self, N):
        """Of each round, less the round's overhead of a call."""
        own = np.array(self.ns[N])
        return own if self.reduced_by is None else own - np.array(self.reduced_by.ns[N])


def auc(scores, labels):
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[group]
    positives = int(labels.sum())
    return (ranks[labels > 0].sum() - positives * (positives + 1) / 2) / (positives * (len(labels) - positives))


def check(rows, directory, labels):
    """Ends the program when a row's scores are NaN, or a float32 row's are not those of the first row."""
    reference = rows[0].score(directory)
    if len(reference) != len(labels) or reference.std() < LEAST_DEVIATION:
        sys.exit(f"{rows[0].label}: {len(reference)} scores with deviation {reference.std():.3g}, which check nothing")
    print(f"Scores of {len(labels):,} candidates beside those of {rows[0].label} (AUC {auc(reference, labels):.5f}):")
    wrong = []
    for row in rows[1:]:
        scores = row.score(directory)
        if len(scores) != len(reference):
            sys.exit(f"{row.label}: {len(scores)} scores of {len(reference)}")
        difference = np.abs(scores - reference)
        worst = difference.max()  # NaN stays NaN
        print(f"  {row.label:<{WIDTH}} largest difference {worst:.1e}, mean {difference.mean():.1e}, "
              f"AUC {auc(scores, labels) - auc(reference, labels):+.5f}")
        if not worst <= (BOUND if row.float32 else 1):  # NaN is not
            wrong.append(row.label)
    if wrong:
        sys.exit(f"NaN, or float32 and more than {BOUND:.0e} off: {', '.join(wrong)}; nothing was timed")
    print(f"  float32 within {BOUND:.0e}; lower precisions are reported, not judged\n")


def measure(rows, rounds, ms):
    order = random.Random(1)
    runs = [(row, N) for row in rows for N in CANDIDATES]
    for done in range(rounds):
        order.shuffle(runs)
        for row, N in runs:
            row.time(N, ms)
        if sys.stderr.isatty():
            print(f"\rround {done + 1} of {rounds}", end="" if done + 1 < rounds else "\n", file=sys.stderr, flush=True)


def spread(values, digits):
    q1, median, q3 = np.percentile(values, (25, 50, 75))
    return f"{median:>9,.{digits}f}  {f'({q1:,.{digits}f} - {q3:,.{digits}f})':<19}"


def table(rows, overhead):
    for N in CANDIDATES:
        title = f"{N:,} candidate{'s' if N > 1 else ''}"
        print(f"{title:<{WIDTH + 2}}{'us a request':>12}{'':<19}{'x the time of ours':>17}")
        base = rows[0].net(N)
        for row in rows:
            net = row.net(N)
            print(f"  {row.label:<{WIDTH}}{spread(net / 1000, 1)} {spread(net / base, 2)}".rstrip())
        print(f"  {overhead.label:<{WIDTH}}{spread(overhead.net(N) / 1000, 1)}".rstrip())
        print()


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown processor"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", required=True, help="directory of make_model.py and export_onnx.py")
    parser.add_argument("--ours", required=True, help="command: hilomoe-bench-peer")
    parser.add_argument("--model", action="append", required=True, help="PRECISION=MODEL_FILE; ratios are to the first")
    parser.add_argument("--node", default="node", help="program that runs onnxruntime_peer.js")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--ms", type=float, default=100, help="of one row and number of candidates in a round")
    options = parser.parse_args()
    here, work = pathlib.Path(__file__).parent, pathlib.Path(options.work)

    ours = Peer("hilomoe", [*shlex.split(options.ours), f"--requests={work}/requests.binpb", *options.model])
    ort = Peer("ONNX Runtime", [options.node, here / "onnxruntime_peer.js", work / "onnx", "1"])
    torch = Peer("PyTorch", [sys.executable, here / "pytorch_peer.py", work / "checkpoint", work / "onnx", "1"])
    overhead = Row(ort, "identity", "  (a call of ONNX Runtime from node, subtracted)")
    rows = []
    for precision in (model.split("=")[0] for model in options.model):
        rows.append(Row(ours, precision, f"hilomoe {ours.version}, {precision}"))
        rows.append(Row(ours, f"{precision}_ids", f"hilomoe {ours.version}, {precision}, ids looked up"))
    rows += [Row(ort, name, f"ONNX Runtime {ort.version}, {label}", overhead)
             for name, label in GRAPHS.items() if name in ort.rows]
    rows += [Row(torch, name, f"PyTorch {torch.version}, {label}")
             for name, label in GRAPHS.items() if name in torch.rows]

    check(rows, work, np.load(work / "requests.npz")["labels"])
    load = os.getloadavg()[0]
    measure([overhead, *rows], options.rounds, options.ms)
    print(f"{processor()}, one thread, load average {load:.2f} before; median (quartiles) of {options.rounds} "
          f"interleaved runs\n")
    table(rows, overhead)
    results = {"processor": processor(), "load_average": load, "rounds": options.rounds,
               "ns": {row.label.strip(): row.ns for row in [overhead, *rows]}}
    (work / "results.json").write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
