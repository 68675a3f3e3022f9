#!/usr/bin/env python3
"""Three times the load that the server can bear: what is still answered in time, and how fast the rest is refused.

    tools/bench/serving/overload.py

Capacity is what a closed loop of 8 requests gets. The cost of a score is the server's processor time for each of them;
the cost of a refusal that of a request of the same bytes which is refused for its size when it arrives
(--max_candidates), before anything is evaluated, when twice the capacity come: as many as an overload has to be
refused. (They cost less the more come, since more are read at once; the table has a closed loop of 64, too.) A thin load of its own goes on before, during and after the overload
and shows how long it takes to recover. Environment, beside serving.py's: SECONDS=10 (of a measurement),
OVERLOAD_SECONDS=20, CANDIDATES=100, DEADLINE_MS=100, CONNECTIONS=4.
"""
import time

from serving import Claims, Load, Server, fresh, load, number, publish, table

SECONDS = number("SECONDS", 10.0)
OVERLOAD_SECONDS = number("OVERLOAD_SECONDS", 20.0)
CANDIDATES = number("CANDIDATES", 100)
DEADLINE_MS = number("DEADLINE_MS", 100)
CONNECTIONS = number("CONNECTIONS", 4)
STEP_MS = 100
PROBES_PER_SECOND = 50


def cost(server, **flags):
    """(the report, processor seconds of the server for a request). Nobody else may use the server meanwhile."""
    before = server.cpu_seconds()
    report = load(server.address, warmup=0, **flags)
    return report, (server.cpu_seconds() - before) / max(report["sent"], 1)


def recovery_seconds(probe, end, usual_p99_ms):
    """From the end of the overload to the end of the last step in which a probe was not answered as usual."""
    recovered = 0.0
    for i, step in enumerate(probe["timeline"]):
        begin = probe["begin"] + i * probe["timeline_step_seconds"]
        slow = step["latency_ms"]["p50"] > 3 * usual_p99_ms
        if begin >= end and (step["good"] < step["sent"] or slow):
            recovered = begin + probe["timeline_step_seconds"] - end
    return recovered


def main():
    claims = Claims()
    repository = fresh("overload")
    publish(1, repository / "bench", 1)
    common = dict(model_dir=repository / "bench", candidates=CANDIDATES, deadline_ms=DEADLINE_MS, connections=CONNECTIONS)

    server = Server(repository)
    scored, score_cost = cost(server, concurrency=8, duration=SECONDS, **common)
    capacity = scored["ok_per_second"]
    claims.correct("capacity without a refusal", scored["refused"] + scored["failed"] == 0, str(scored["by_code"]))

    strict = Server(repository, max_candidates=CANDIDATES - 1)
    _, busy_refusal_cost = cost(strict, concurrency=64, duration=SECONDS, **common)
    refused, refusal_cost = cost(strict, rate=2 * capacity, duration=SECONDS, **common)
    claims.correct("the refused were refused", refused["failed"] == refused["sent"], str(refused["by_code"]))
    strict.terminate()

    at80 = load(server.address, rate=0.8 * capacity, duration=SECONDS, verify="true", **common)
    p99_at80 = at80["latency_ms"]["p99"]
    rss_before = server.rss_bytes()

    probe = Load(server.address, rate=PROBES_PER_SECOND, duration=OVERLOAD_SECONDS + 15, timeline_ms=STEP_MS, **common)
    time.sleep(4)
    cpu, began = server.cpu_seconds(), time.time()
    client = Load(server.address, rate=3 * capacity, duration=OVERLOAD_SECONDS, verify="true", **common)
    rss = []
    while client.process.poll() is None:
        rss.append(server.rss_bytes())
        time.sleep(0.5)
    over = client.wait()
    end = over["begin"] + over["seconds"]
    cpu = (server.cpu_seconds() - cpu) / (time.time() - began)
    probed = probe.wait()

    print(f"capacity {capacity:.0f} requests/s of {CANDIDATES} candidates; deadline {DEADLINE_MS} ms; "
          f"the server took {cpu:.0%} of its core\n")
    table([["load", "offered/s", "in time/s", "refused/s", "failed", "p50 ms", "p99 ms", "refusal p50", "refusal p99"]] + [
        [name, f"{r['sent_per_second']:.0f}", f"{r['good_per_second']:.0f}", f"{r['refused'] / r['seconds']:.0f}",
         r["failed"], f"{r['latency_ms']['p50']:.2f}", f"{r['latency_ms']['p99']:.2f}",
         f"{r['refusal_latency_ms']['p50']:.3f}", f"{r['refusal_latency_ms']['p99']:.3f}"]
        for name, r in (("closed, 8", scored), ("80 %", at80), ("300 %", over))])
    print(f"\na score costs {score_cost * 1e6:.0f} us, a refusal {refusal_cost * 1e6:.1f} us: "
          f"{refusal_cost / score_cost:.1%} ({busy_refusal_cost * 1e6:.1f} us from a closed loop of 64); pushbacks {over['pushbacks']}; {over['by_code']}")
    print(f"client: {over['client']['cpu_seconds'] / over['client']['run_seconds']:.0%} of its core, "
          f"sent late by p99 {over['client']['send_delay_ms']['p99']:.2f} ms, held back {over['client']['held_back']}")

    goodput, least = over["good_per_second"] / capacity, 1 - 2 * refusal_cost / score_cost - 0.05
    claims.correct("every score was right", over["exit_code"] == 0 and at80["exit_code"] == 0, str(over["scores"]))
    claims.correct("the client could send what it was to", over["client"]["held_back"] == 0)
    claims.speed("goodput >= 1 - 2 x refusal / score - 5 %", goodput >= least, f"{goodput:.1%} of {least:.1%}")
    p50 = over["refusal_latency_ms"]["p50"]
    claims.speed("refusals within 2 ms (median)", 0 < p50 <= 2, f"{p50:.3f} ms")
    ratio = over["latency_ms"]["p99"] / p99_at80
    claims.speed("p99 of the admitted <= 2 x that at 80 % load", ratio <= 2,
                 f"{over['latency_ms']['p99']:.2f} ms, {ratio:.2f} times {p99_at80:.2f} ms")
    third = rss[len(rss) // 3:] or rss
    claims.correct("memory is flat", max(third) <= 1.02 * third[0] + (4 << 20),
                   f"{rss_before >> 20} MiB before, {third[0] >> 20} MiB soon, {max(rss) >> 20} MiB at most")
    recovery = recovery_seconds(probed, end, p99_at80)
    claims.speed("recovered within 1 s", recovery <= 1, f"{recovery:.1f} s")
    claims.correct("the server ends with exit code 0", server.terminate() == 0)
    claims.end()


if __name__ == "__main__":
    main()
