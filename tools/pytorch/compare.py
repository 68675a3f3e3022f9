#!/usr/bin/env python3
"""What compare_speed.sh and compare_quality.sh compute: see --help of the commands."""

import argparse
import json
import math
import pathlib
import statistics
import sys


def hilomoe_result(run):
    """Of a run's metrics.jsonl: rows/s of the training steps alone, final metrics."""
    events = [json.loads(line) for line in (pathlib.Path(run) / "metrics.jsonl").read_text().splitlines()]
    begin = next(e for e in events if e["event"] == "run")
    batch = next((int(line.split(":")[1]) for line in begin["config"].splitlines() if line.startswith("batch_size:")),
                 4096)
    one_pass = any(line.startswith("one_pass: true") for line in begin["config"].splitlines())
    n = begin["rows"]["train"]
    rows, seconds, last, place = 0, 0.0, 0, None
    for e in (e for e in events if e["event"] == "progress"):
        if not one_pass and place != (e["stage"], e["epoch"]):
            place, first = (e["stage"], e["epoch"]), last
        origin = 0 if one_pass else first
        own = min(n, (e["step"] - origin) * batch) - (last - origin) * batch
        rows, seconds, last = rows + own, seconds + own / e["rows_per_s"], e["step"]
    result = {"by": "hilomoe", "rows_per_s": rows / seconds}
    for e in (e for e in events if e["event"] == "final"):
        for name in ("auc", "logloss"):
            result[f"{e['split']}_{name}"] = e["metrics"][name]
    return result


def pytorch_result(path):
    result = json.loads(pathlib.Path(path).read_text())
    return {"by": "PyTorch", **{k: v for k, v in result.items() if not isinstance(v, (list, dict))}}


def column(results, by, name):
    values = [r[name] for r in results if r["by"] == by]
    return values or sys.exit(f"no result of {by}")


def speed(results, tolerance):
    median = {}
    for by in ("hilomoe", "PyTorch"):
        rates = column(results, by, "rows_per_s")
        median[by] = statistics.median(rates)
        print(f"  {by:8} {median[by]:12,.0f} rows/s (min {min(rates):,.0f}, max {max(rates):,.0f}; "
              f"{len(rates)} rounds)")
    auc = {by: statistics.median(column(results, by, "valid_auc")) for by in median}
    print(f"  hilomoe is {median['hilomoe'] / median['PyTorch']:.2f} times as fast; "
          f"valid AUC {auc['hilomoe']:.4f} and {auc['PyTorch']:.4f}")
    if not abs(auc["hilomoe"] - auc["PyTorch"]) <= tolerance:
        sys.exit(f"  NOT COMPARABLE: the valid AUCs differ by more than {tolerance}; this is no measurement of speed")


def quality(results):
    for name, digits in (("test_auc", 5), ("test_logloss", 5)):
        mean, variance = {}, {}
        for by in ("hilomoe", "PyTorch"):
            values = column(results, by, name)
            mean[by] = statistics.fmean(values)
            deviation = statistics.stdev(values) if len(values) > 1 else math.nan
            variance[by] = deviation**2 / len(values)
            print(f"{name:12} {by:8} mean {mean[by]:.{digits}f}  deviation {deviation:.{digits}f}  "
                  f"min {min(values):.{digits}f}  max {max(values):.{digits}f}  ({len(values)} seeds)")
        print(f"{name:12} hilomoe - PyTorch {mean['hilomoe'] - mean['PyTorch']:+.{digits}f}, "
              f"standard error {math.sqrt(sum(variance.values())):.{digits}f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (("hilomoe", "one JSON line from a hilomoe-train output directory"),
                          ("pytorch", "one JSON line from a train.py --output file"),
                          ("speed", "medians and their ratio of a file of such lines"),
                          ("quality", "means and their difference of a file of such lines")):
        command = commands.add_parser(command, help=text)
        command.add_argument("path")
        command.add_argument("--tolerance", type=float, default=0.005, help="speed: bound on valid AUCs' difference")
    options = parser.parse_args()
    if options.command == "hilomoe":
        print(json.dumps(hilomoe_result(options.path)))
    elif options.command == "pytorch":
        print(json.dumps(pytorch_result(options.path)))
    else:
        results = [json.loads(line) for line in pathlib.Path(options.path).read_text().splitlines()]
        speed(results, options.tolerance) if options.command == "speed" else quality(results)


if __name__ == "__main__":
    main()
