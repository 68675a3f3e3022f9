#!/usr/bin/env python3
"""Servers that go away under load: each of two is told to end in turn, with SIGTERM, and started again.

    tools/bench/serving/drain.py

The client watches the health of both (grpc.health.v1 Watch) and sends to those that serve; nothing is tried twice but
what gRPC itself knows was never read. Environment, beside serving.py's: CYCLES=5 (each ends both once), DRAIN_MS=1000,
CANDIDATES=100, RATE=200 (requests/s), CYCLE_SECONDS=4 (that the load lasts for each restart beside DRAIN_MS; a server
with a sanitizer takes 7).
"""
import time

from serving import Claims, Load, Server, fresh, number, publish

CYCLES = number("CYCLES", 5)
DRAIN_MS = number("DRAIN_MS", 1000)
CANDIDATES = number("CANDIDATES", 100)
RATE = number("RATE", 200.0)
CYCLE_SECONDS = number("CYCLE_SECONDS", 4.0)


def main():
    claims = Claims()
    repository = fresh("drain")
    publish(1, repository / "bench", 1)
    # Patient: what a busy machine delays is not to be refused here.
    flags = dict(drain_ms=DRAIN_MS, max_queue_ms=4000)
    servers = [Server(repository, **flags) for _ in range(2)]
    addresses = [server.address for server in servers]
    seconds = CYCLES * 2 * (DRAIN_MS / 1e3 + CYCLE_SECONDS) + 10
    client = Load("ipv4:" + ",".join(addresses), watch_health="true", rate=RATE, duration=seconds, connections=2, deadline_ms=5000,
                  model_dir=repository / "bench", candidates=CANDIDATES, verify="true")
    time.sleep(4)
    exits, shares = [], []
    for cycle in range(2 * CYCLES):
        which = cycle % 2
        server = servers[which]
        time.sleep(1)
        shares.append(server.metric("hilomoe_requests_total", code="OK"))
        if client.process.poll() is not None:
            break
        exits.append(server.terminate(timeout=DRAIN_MS / 1e3 + 40))
        servers[which] = Server(repository, listen_address=addresses[which], **flags)
        time.sleep(1)
    report = client.wait()
    print(report["text"], end="")
    claims.correct("servers that drain end with exit code 0", exits == [0] * 2 * CYCLES, str(exits))
    claims.correct("each had served before", len(shares) == 2 * CYCLES and min(shares) > 0, f"{shares}")
    claims.correct("0 requests failed", report["failed"] + report["refused"] == 0,
                   f"{report['failed']} failed, {report['refused']} refused of {report['sent']}; {report['by_code']} "
                   f"{report['first_failure']}")
    claims.correct("every score was right", report["exit_code"] == 0, f"{report['scores']}")
    for server in servers:
        claims.correct("a server ends with exit code 0", server.terminate() == 0)
    claims.end()


if __name__ == "__main__":
    main()
