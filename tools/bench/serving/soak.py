#!/usr/bin/env python3
"""Hours in minutes: mixed load, swaps, scrapes, clients that come and go; then memory and descriptors are compared.

    DURATION=900 tools/bench/serving/soak.py

All the time: Score at its own pace with 10 to 1,000 candidates, every score compared with its version's. In bursts: a
ScoreStream that takes what is left, ModelInfer, and clients that connect, ask for the model (GetModel), score and leave.
Every SWAP_SECONDS=15 a version with other weights is published and an old one withdrawn. The resident set is the least
in a period of a swap; its growth is from the second quarter of the run, when the second model that a swap needs is
resident, to the last. Environment, beside serving.py's: RATE=120 (requests/s), METHODS=Score,ScoreStream,ModelInfer.
"""
import itertools
import statistics
import threading
import time

from serving import Claims, Load, Server, fresh, load, number, publish, table, withdraw

DURATION = number("DURATION", 900)
SWAP_SECONDS = number("SWAP_SECONDS", 15.0)
RATE = number("RATE", 120.0)
METHODS = number("METHODS", "Score,ScoreStream,ModelInfer").split(",")
SEEDS = (1, 2)
BURST_SECONDS = 3


class Soak:
    def __init__(self):
        self.claims = Claims()
        self.repository, self.files = fresh("soak_repository"), fresh("soak_files")
        self.model = self.repository / "bench"
        self.versions = int(DURATION / SWAP_SECONDS) + 3
        for version in range(1, self.versions + 1):
            publish(SEEDS[version % 2], self.files, version)
        publish(SEEDS[1], self.model, 1)
        # Patient: bursts make requests wait, and here none may be refused.
        self.server = Server(self.repository, max_queue_ms=4000)
        self.end = time.time() + DURATION
        self.samples = []  # (time, resident bytes, descriptors, threads)
        self.reports = {method: [] for method in (*METHODS, "reconnects")}
        self.scrapes = self.swaps = 0
        self.errors = []

    def guard(self, work):
        """A thread whose exceptions are kept."""
        def run():
            try:
                work()
            except BaseException as error:  # what ends a thread must not be lost
                self.errors.append(f"{work.__name__}: {error!r}")
        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def sample(self):
        while time.time() < self.end:
            self.server.metrics()
            self.scrapes += 1
            self.samples.append((time.time(), self.server.rss_bytes(), self.server.descriptors(), self.server.threads()))
            time.sleep(1)

    def swap(self):
        for version in range(2, self.versions + 1):
            time.sleep(SWAP_SECONDS)
            if time.time() > self.end - 30:  # the last one is to be seen by the steady load
                return
            publish(SEEDS[version % 2], self.model, version)
            self.swaps += 1
            while self.server.metric("hilomoe_requests_total", version=version, code="OK") == 0:
                if time.time() > self.end:
                    raise RuntimeError(f"version {version} has not been served")
                time.sleep(0.2)
            if version > 2:
                withdraw(self.model, version - 2)

    def bursts(self):
        methods = [method for method in METHODS if method != "Score"]
        for method in itertools.cycle(methods + ["reconnects"]):
            if time.time() > self.end - BURST_SECONDS - 5:
                return
            flags = dict(method=method, model_dir=self.files, verify="true", concurrency=2)
            if method == "reconnects":
                flags = dict(connections=20, concurrency=2, candidates=10)
            self.reports[method].append(load(self.server.address, duration=BURST_SECONDS, warmup=0, deadline_ms=5000, **flags))
            time.sleep(1)

    def run(self):
        steady = Load(self.server.address, rate=RATE, candidates="10:0.2,100:0.6,1000:0.2", connections=2,
                      duration=DURATION - 10, deadline_ms=5000, model_dir=self.files, verify="true")
        threads = [self.guard(work) for work in (self.sample, self.swap, self.bursts)]
        for thread in threads:
            thread.join()
        self.reports["Score"].append(steady.wait())
        self.report()

    def report(self):
        claims = self.claims
        table([["", "runs", "requests", "failed", "refused", "right", "wrong", "p50 ms", "p99 ms"]] + [
            [method, len(reports), sum(r["sent"] for r in reports), sum(r["failed"] for r in reports),
             sum(r["refused"] for r in reports), sum(r["scores"]["right"] for r in reports),
             sum(r["scores"]["wrong"] + r["scores"]["unknown_version"] for r in reports),
             f"{statistics.median(r['latency_ms']['p50'] for r in reports):.2f}",
             f"{statistics.median(r['latency_ms']['p99'] for r in reports):.2f}"]
            for method, reports in self.reports.items() if reports])
        everything = [report for reports in self.reports.values() for report in reports]
        claims.correct("nothing broke here", not self.errors, "; ".join(self.errors))
        claims.correct("0 requests failed", all(r["failed"] + r["refused"] == 0 for r in everything),
                       "; ".join(sorted({r["first_failure"] for r in everything if r["first_failure"]})))
        claims.correct("every score was its version's", all(r["exit_code"] == 0 for r in everything))
        served = len({version for r in everything for version in r["by_version"]})
        claims.correct(f"{self.swaps} swaps took place", served == self.swaps + 1, f"{served} versions answered")

        begin = self.samples[0][0]
        periods = {}
        for at, *values in self.samples:
            periods.setdefault(int((at - begin) / SWAP_SECONDS), []).append(values)
        least = [tuple(min(values) for values in zip(*period)) for _, period in sorted(periods.items())][1:-1]
        quarter = max(len(least) // 4, 1)
        early, late = least[quarter:2 * quarter], least[-quarter:]
        for index, (name, unit, most) in enumerate((("resident set", 1 << 20, 1.02), ("descriptors", 1, 1.0),
                                                     ("threads", 1, 1.1))):
            before, after = (statistics.median(values[index] for values in part) / unit for part in (early, late))
            claims.correct(f"{name} grows by at most {most - 1:.0%}", after <= most * before,
                           f"{before:.0f} then {after:.0f} ({after / before - 1:+.2%}); "
                           f"at most {max(sample[index + 1] for sample in self.samples) / unit:.0f}")
        print(f"{DURATION} s, {self.scrapes} scrapes")
        claims.correct("the server ends with exit code 0", self.server.terminate() == 0)
        claims.end()


if __name__ == "__main__":
    Soak().run()
