#!/usr/bin/env python3
"""Swaps under load: new versions with other weights are published while requests come in at their own pace.

    tools/bench/serving/swap.py

A Poisson client sends SHARE=0.6 of what the server can do. Every score is compared, bit by bit, with what the model file
of the version that the answer names gives. A swap lasts from the publication until 100 ms after the first answer of the
new version. Environment, beside serving.py's: SWAPS=50, INTERVAL=2 (seconds between two), CANDIDATES=100.
"""
import re
import time

from serving import WORK, Claims, Load, Server, fresh, load, number, publish, table, withdraw

SWAPS = number("SWAPS", 50)
INTERVAL = number("INTERVAL", 2.0)
SHARE = number("SHARE", 0.6)
CANDIDATES = number("CANDIDATES", 100)
SEEDS = (1, 2, 3)
LOAD_SECONDS = 1.0  # that a load may take beyond INTERVAL, on the average


def loaded(server, version):
    with open(server.log) as log:
        log.seek(max(0, server.log.stat().st_size - 20000))
        return re.search(rf'"loaded model".*"version":{version},', log.read()) is not None


def main():
    claims = Claims()
    repository, files = fresh("swap_repository"), fresh("swap_files")
    model = repository / "bench"
    for version in range(1, SWAPS + 2):
        publish(SEEDS[version % len(SEEDS)], files, version)
    publish(SEEDS[1], model, 1)
    # Patient: a machine that stands still for a moment, as virtual ones do, is not to be taken for an overload here.
    server = Server(repository, max_queue_ms=500)
    common = dict(model_dir=files, candidates=CANDIDATES)
    capacity = load(server.address, concurrency=8, duration=4, **common)["ok_per_second"]
    print(f"capacity {capacity:.0f} requests/s of {CANDIDATES} candidates; offered {SHARE * capacity:.0f}/s", flush=True)

    times = WORK / "swap_times"
    times.write_text("")
    rss = [server.rss_bytes()]
    client = Load(server.address, rate=SHARE * capacity, verify="true", duration=(SWAPS + 1) * (INTERVAL + LOAD_SECONDS) + 10,
                  swap_times=times, **common)
    while server.metric("hilomoe_requests_in_flight") == 0 and client.process.poll() is None:
        time.sleep(0.05)  # it computes what to expect first
    time.sleep(3)
    took = []
    for version in range(2, SWAPS + 2):
        began = publish(SEEDS[version % len(SEEDS)], model, version)
        with open(times, "a") as out:
            out.write(f"{began:.6f} version {version}\n")
        # Its log tells; scrapes, and reading them, would cost what the requests are to have.
        while not loaded(server, version):
            if time.time() - began > 60 or client.process.poll() is not None:
                claims.correct(f"version {version} is served before the load ends", False, server.log.read_text()[-1000:])
                claims.end()
            time.sleep(0.1)
        took.append(time.time() - began)
        if version > 2:
            withdraw(model, version - 2)
        time.sleep(max(0.0, began + INTERVAL - time.time()))
        rss.append(server.rss_bytes())
    report = client.wait()
    print(report["text"], end="")
    within, steady = report["swaps"]["within"], report["swaps"]["steady"]
    table([["", "requests", "seconds", "p50 ms", "p99 ms", "p99.9 ms", "max ms"]] + [
        [name, counts["sent"], f"{counts['seconds']:.1f}", *(f"{counts['latency_ms'][p]:.2f}"
                                                             for p in ("p50", "p99", "p99.9", "max"))]
        for name, counts in (("within swaps", within), ("else", steady))])
    took.sort()
    print(f"served {took[len(took) // 2]:.2f} s after publication (median), {took[-1]:.2f} s at most; "
          f"memory {rss[0] >> 20} MiB before, {max(rss) >> 20} MiB at most, {rss[-1] >> 20} MiB after")
    claims.correct(f"{SWAPS} swaps", report["swaps"]["count"] == SWAPS, str(report["swaps"]["count"]))
    claims.correct("0 requests failed", report["failed"] + report["refused"] == 0,
                   f"{report['failed']} failed, {report['refused']} refused of {report['sent']}; {report['by_code']}")
    claims.correct("every score was its version's", report["exit_code"] == 0, f"{report['scores']}")
    ratio = within["latency_ms"]["p99"] / max(steady["latency_ms"]["p99"], 1e-9)
    claims.speed("p99 within swaps <= 2 x p99 else", ratio <= 2, f"{ratio:.2f} times")
    claims.correct("the server ends with exit code 0", server.terminate() == 0)
    claims.end()


if __name__ == "__main__":
    main()
