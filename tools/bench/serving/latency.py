#!/usr/bin/env python3
"""What serving adds to evaluating: latency of a request on an idle server, candidates a second of a busy one.

    tools/bench/serving/latency.py

Beside a bare gRPC server that answers the same bytes with the same bytes (`hilomoe-client echo`), and the predictor in a
loop of its own in one process (`hilomoe-client bench --in_process`), on the same core, in turn. The predictor's own time
of a request is what the server says in its answer: encoding and evaluating. Environment, beside serving.py's: ROUNDS=10,
SECONDS=2 (of a measurement), CANDIDATES=100, SPLIT_CANDIDATES=1000 (of the requests that two cores share).
"""
from serving import (CLIENT_CORES, SERVER_CORES, Claims, Echo, Server, fresh, load, number, publish,
                     quartiles, table)

ROUNDS = number("ROUNDS", 10)
SECONDS = number("SECONDS", 2.0)
CANDIDATES = number("CANDIDATES", 100)
SPLIT_CANDIDATES = number("SPLIT_CANDIDATES", 1000)


def show(rows):
    """rows: (name, unit, values by round)."""
    table([["", "median", "quartiles", ""]] + [
        [name, f"{middle:.3f}", f"{low:.3f} - {high:.3f}", unit]
        for name, unit, (middle, low, high) in ((name, unit, quartiles(values)) for name, unit, values in rows)])


def unloaded(claims, server, echo, model_directory):
    common = dict(model_dir=model_directory, candidates=CANDIDATES, duration=SECONDS, warmup=0.3)
    echoed, scored, predicted, ratio = [], [], [], []
    for _ in range(ROUNDS):
        echoed.append(load(echo.address, **common)["latency_ms"]["p50"])
        report = load(server.address, timings="true", verify="true", **common)
        claims.failed |= report["exit_code"] != 0
        scored.append(report["latency_ms"]["p50"])
        predicted.append(report["predictor_ms"]["p50"])
        ratio.append(scored[-1] / (echoed[-1] + 1.2 * predicted[-1]))
    print(f"\nIdle server, {CANDIDATES} candidates, p50 of {ROUNDS} rounds")
    show([("gRPC echo of the same bytes", "ms", echoed), ("predictor's own time", "ms", predicted),
          ("Score", "ms", scored), ("Score / (echo + 1.2 predictor)", "", ratio)])
    claims.speed("p50 <= echo + 1.2 x predictor", quartiles(ratio)[0] <= 1, f"{quartiles(ratio)[0]:.3f} of it")


def saturated(claims, server, model_directory):
    common = dict(model_dir=model_directory, candidates=CANDIDATES, duration=SECONDS, warmup=0.3)
    methods = {"Score": 0.65, "ScoreStream": 0.80}
    alone, served = [], {method: [] for method in methods}
    for _ in range(ROUNDS):
        alone.append(load("", cores=SERVER_CORES, in_process="true", **common)["candidates_per_second"])
        for method in methods:
            report = load(server.address, method=method, concurrency=8, verify="true", **common)
            claims.failed |= report["exit_code"] != 0
            served[method].append(report["candidates_per_second"] / alone[-1])
    print(f"\nSaturated server, {CANDIDATES} candidates, {ROUNDS} rounds")
    show([("predictor alone", "candidates/s", alone)] +
         [(f"{method} / predictor alone", "", served[method]) for method in methods])
    for method, least in methods.items():
        share = quartiles(served[method])[0]
        claims.speed(f"{method} >= {least:.0%} of the predictor's candidates/s", share >= least, f"{share:.1%}")


def split(claims, repository, model_directory):
    """Requests that two cores share, at a third of what one core can do."""
    cores = f"{SERVER_CORES},{CLIENT_CORES}"
    servers = {what: Server(repository, cores=cores, split_candidates=least)
               for what, least in (("split over two cores", 128), ("not split", 0))}
    common = dict(model_dir=model_directory, candidates=SPLIT_CANDIDATES, warmup=0.5)
    seconds = load("", cores=SERVER_CORES, in_process="true", duration=1, **common)["latency_ms"]["p50"] / 1e3
    p50s, p99s = {what: [] for what in servers}, {what: [] for what in servers}
    for _ in range(ROUNDS):
        for what, server in servers.items():
            report = load(server.address, cores=cores, rate=1 / seconds / 3, duration=max(SECONDS, 150 * seconds),
                          verify="true", **common)
            claims.failed |= report["exit_code"] != 0
            p50s[what].append(report["latency_ms"]["p50"])
            p99s[what].append(report["latency_ms"]["p99"])
    print(f"\n{SPLIT_CANDIDATES} candidates, open loop at {1 / seconds / 3:.0f} requests/s, server and client on two cores")
    show([(f"{what}, {name}", "ms", values[what]) for what in servers
          for name, values in (("p50", p50s), ("p99", p99s))])
    gain = quartiles(p99s["not split"])[0] / quartiles(p99s["split over two cores"])[0]
    claims.speed("p99 of split requests <= p99 of whole ones", gain >= 1, f"{gain:.2f} times as fast")
    for server in servers.values():
        claims.correct("a server ends with exit code 0", server.terminate() == 0)


def main():
    claims = Claims()
    repository = fresh("latency")
    publish(1, repository / "bench", 1)
    server, echo = Server(repository), Echo(CANDIDATES)
    unloaded(claims, server, echo, repository / "bench")
    saturated(claims, server, repository / "bench")
    claims.correct("every score was right", not claims.failed)
    claims.correct("the server ends with exit code 0", server.terminate() == 0)
    echo.terminate()
    split(claims, repository, repository / "bench")
    claims.end()


if __name__ == "__main__":
    main()
