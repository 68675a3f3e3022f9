#!/usr/bin/env python3
"""What must not hurt: killed servers, bad clients, bad files, full disks, clocks that jump.

    tools/bench/serving/faults.py [NAME ...]        (default: all; names as the functions below)

Each fault happens while a Poisson client sends RATE requests a second, compares every score with the model file, and
counts what fails. Environment, beside serving.py's: RATE=150, CANDIDATES=100, IDLE_CONNECTIONS=5000. IDS=20000 is enough
here, and is the default.
"""
import contextlib
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import time

os.environ.setdefault("IDS", "20000")

from serving import (WORK, Claims, Load, Server, fresh, model_file, number, publish,  # noqa: E402
                     withdraw)
import http2  # noqa: E402

RATE = number("RATE", 150.0)
CANDIDATES = number("CANDIDATES", 100)
IDLE_CONNECTIONS = number("IDLE_CONNECTIONS", 5000)
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


class Skipped(Exception):
    pass


def repository(name):
    """With version 1 of the model."""
    path = fresh("faults_" + name)
    publish(1, path / "bench", 1)
    return path


def start_load(server, seconds, **flags):
    return Load(server.address, **{"rate": RATE, "duration": seconds, "warmup": 0.5, "candidates": CANDIDATES,
                                   "model_dir": reference_files(), "verify": "true", **flags})


def reference_files():
    """Of the versions that are served in this script, to compare scores with."""
    path = WORK / "faults_files"
    if not path.exists():
        for version in (1, 20, 21):
            publish(1, path / "bench", version)
    return path / "bench"


def judge(claims, report, what, failed=0):
    latency = report["latency_ms"]
    claims.correct(f"{what}: at most {failed} requests failed", report["failed"] + report["refused"] <= failed,
                   f"{report['failed'] + report['refused']} of {report['sent']}, {report['by_code']}; "
                   f"p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms, max {latency['max']:.1f} ms "
                   f"{report['first_failure']}")
    claims.correct(f"{what}: every score was right", report["exit_code"] == 0, f"{report['scores']}")


def wait_until(condition, seconds):
    until = time.time() + seconds
    while time.time() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


def end(claims, server):
    claims.correct("the server ends with exit code 0", server.terminate() == 0)


def kill_and_restart(claims):
    """kill -9, and the same command again."""
    path = repository("kill")
    server = Server(path)
    client = start_load(server, 12, timeline_ms=500)
    time.sleep(4)
    server.kill()
    killed = time.time()
    server = Server(path, listen_address=server.address)
    down = time.time() - killed
    report = client.wait()
    lost = [step for i, step in enumerate(report["timeline"])
            if report["begin"] + 0.5 * i > killed + down + 1.5 and step["good"] < step["sent"]]
    claims.correct("all is served again 1.5 s after the server is back", not lost, f"it was down for {down:.2f} s")
    judge(claims, report, "kill -9", failed=int(RATE * (down + 2)))
    end(claims, server)


def client_that_never_reads(claims):
    """Requests without end whose answers are never read, from three connections."""
    server = Server(repository("unread"))
    rss = server.rss_bytes()
    client = start_load(server, 10, deadline_ms=5000)
    time.sleep(2)
    deaf = [http2.Connection(server.address, receive_buffer=4096) for _ in range(3)]
    sent = 0
    with contextlib.suppress(OSError):  # the server may stop reading, too
        for connection in deaf:
            connection.socket.settimeout(1)
            for _ in range(1000):
                connection.call(http2.SCORE, http2.score_request(50))
                sent += 1
    report = client.wait()
    grown = server.rss_bytes() - rss
    claims.correct("memory is bounded", grown < 256 << 20, f"{sent} requests unread, {grown >> 20} MiB more")
    # Theirs is refused or shed, if anybody's: the load itself may be refused while the burst is evaluated.
    judge(claims, report, "answers that are never read", failed=report["refused"])
    for connection in deaf:
        connection.close()
    claims.correct("nothing is left in flight", wait_until(lambda: server.metric("hilomoe_requests_in_flight") == 0, 10))
    end(claims, server)


def idle_connections(claims):
    """Half of them silent, half with HTTP/2's opening."""
    server = Server(repository("idle"))
    before, rss = server.descriptors(), server.rss_bytes()
    idle = []
    client = start_load(server, 25, deadline_ms=5000)
    time.sleep(2)
    for i in range(IDLE_CONNECTIONS):
        idle.append(http2.Connection(server.address, hello=i % 2 == 0))
        if i % 2 == 0:
            idle[-1].acknowledge_settings()
    time.sleep(2)
    there, memory = server.descriptors() - before, server.rss_bytes() - rss
    report = client.wait()
    closed = sum(connection.closed_by_server() for connection in idle)
    claims.correct(f"{IDLE_CONNECTIONS} connections were held", there > 0.99 * IDLE_CONNECTIONS,
                   f"{there} descriptors, {memory / max(there, 1) / 1024:.1f} KiB each; the server closed {closed}, "
                   "those that said nothing")
    judge(claims, report, "idle connections")
    for connection in idle:
        connection.close()
    claims.correct("descriptors come back", wait_until(lambda: server.descriptors() <= before + 5, 20),
                   f"{before} before, {server.descriptors()} after")
    end(claims, server)


def slow_loris(claims):
    """300 clients that send the beginning of a request byte by byte."""
    server = Server(repository("loris"))
    before = server.descriptors()
    client = start_load(server, 14)
    time.sleep(1)
    whole = http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0) + \
        http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.headers(http2.SCORE))
    slow = [(http2.Connection(server.address, hello=False), i % 3) for i in range(300)]
    at = 0
    until = time.time() + 11
    while time.time() < until and at < len(whole):
        for connection, kind in slow:
            # A third stops in the preface, a third in the headers, a third behind them.
            if at < (10, len(whole) - 20, len(whole))[kind]:
                with contextlib.suppress(OSError):
                    connection.socket.sendall(whole[at:at + 1])
        at += 1
        time.sleep(0.1)
    time.sleep(2)
    report = client.wait()
    closed = sum(connection.closed_by_server() for connection, _ in slow)
    claims.correct("who does not finish the opening is disconnected", closed >= 100, f"{closed} of {len(slow)}")
    judge(claims, report, "slow clients")
    for connection, _ in slow:
        connection.close()
    claims.correct("descriptors come back", wait_until(lambda: server.descriptors() <= before + 5, 20))
    end(claims, server)


def cancelled_calls(claims):
    """Large requests that are cancelled as soon as they are sent."""
    server = Server(repository("cancel"))
    connection = http2.Connection(server.address)
    size, calls = 10_000, 200
    begun = server.cpu_seconds()
    connection.call(http2.SCORE, http2.score_request(size))
    wait_until(lambda: server.metric("hilomoe_candidates_total") >= size, 20)
    one = server.cpu_seconds() - begun
    claims.correct("one was evaluated", server.metric("hilomoe_candidates_total") >= size, f"it took {one:.2f} s")
    begun = server.cpu_seconds()
    for _ in range(calls):
        connection.cancel(connection.call(http2.SCORE, http2.score_request(size)))
        time.sleep(0.005)
    idle = wait_until(lambda: server.metric("hilomoe_requests_in_flight") == 0, 60)
    spent = server.cpu_seconds() - begun
    claims.correct("nothing is left in flight", idle)
    claims.correct("cancelled calls cost a tenth of evaluated ones at most", spent <= 0.1 * calls * one,
                   f"{spent:.2f} s for {calls} that would take {calls * one:.1f} s")
    connection.close()
    judge(claims, start_load(server, 2).wait(), "afterwards")
    end(claims, server)


def rapid_resets(claims):
    """Calls that are cancelled in the same packet that begins them, as fast as two connections take them."""
    server = Server(repository("resets"))
    client = start_load(server, 12, deadline_ms=5000)
    time.sleep(2)
    rss, begun = server.rss_bytes(), server.cpu_seconds()
    connections = [http2.Connection(server.address) for _ in range(2)]
    sent, until = 0, time.time() + 5
    with contextlib.suppress(OSError):  # the server may end such a connection
        while time.time() < until:
            for connection, method in zip(connections, (http2.SCORE, http2.SCORE_STREAM)):
                connection.call_and_cancel(method, http2.score_request(100), calls=50)
                sent += 50
    spent, grown = server.cpu_seconds() - begun, server.rss_bytes() - rss
    for connection in connections:
        connection.close()
    report = client.wait()
    claims.correct("memory is bounded", grown < 512 << 20,
                   f"{sent} calls in 5 s, {spent:.1f} s of the server's core, {grown >> 20} MiB more")
    given_back = wait_until(lambda: server.rss_bytes() - rss < 192 << 20, 20)
    claims.correct("the memory of the cancelled calls is given back", given_back,
                   f"{(server.rss_bytes() - rss) >> 20} MiB more than before")
    judge(claims, report, "calls begun and cancelled", failed=report["refused"])
    claims.correct("nothing is left in flight", wait_until(lambda: server.metric("hilomoe_requests_in_flight") == 0, 10))
    judge(claims, start_load(server, 2).wait(), "afterwards")
    end(claims, server)


def scrapes(claims):
    """Metrics every 100 ms."""
    server = Server(repository("scrapes"))
    alone = start_load(server, 6).wait()
    client = start_load(server, 8)
    done, slowest = 0, 0.0
    while client.process.poll() is None:
        begun = time.time()
        claims.failed |= "hilomoe_requests_total" not in server.metrics()
        slowest = max(slowest, time.time() - begun)
        done += 1
        time.sleep(max(0.0, begun + 0.1 - time.time()))
    report = client.wait()
    judge(claims, report, f"{done} scrapes, the slowest {slowest * 1e3:.0f} ms")
    print(f"       p99 {alone['latency_ms']['p99']:.2f} ms without, {report['latency_ms']['p99']:.2f} ms with scrapes")
    end(claims, server)


def full_disk(claims):
    """The log goes to a device that is always full, the capture to a file system that becomes it."""
    small = fresh("faults_small")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", small], check=False).returncode:
        raise Skipped("may not mount a small tmpfs")
    flags = {"request_log_sample": 1, "capture_path": small / "capture", "capture_sample": 1}
    try:
        server = Server(repository("full"), log="/dev/full", **flags)
        judge(claims, start_load(server, 8).wait(), f"full disk, {sorted(flags)}")
        claims.correct("the capture filled its disk", shutil.disk_usage(small).free < 8 << 10,
                       f"{(small / 'capture').stat().st_size} bytes")
        end(claims, server)
    finally:
        subprocess.run(["umount", "-l", small], check=False)


def clock_jumps(claims):
    """The server's wall clock goes forward and back by an hour, twice."""
    if not pathlib.Path(FAKETIME).exists():
        raise Skipped("tools/install_packages.sh faults")
    offset = WORK / "clock"
    offset.write_text("+0\n")
    server = Server(repository("clock"), environment={
        "LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": offset, "FAKETIME_NO_CACHE": 1,
        "FAKETIME_DONT_FAKE_MONOTONIC": 1}, request_log_sample=1)
    client = start_load(server, 14)
    time.sleep(2)
    for jump in ("+3600", "-3600", "+3600", "+0"):
        offset.write_text(jump + "\n")
        time.sleep(2.5)
    report = client.wait()
    times = re.findall(r'"time":"\d+-\d+-\d+T(\d+):', server.log.read_text())
    claims.correct("the server's clock did jump", len(set(times)) >= 3, f"hours of its log: {sorted(set(times))}")
    # Whatever was under way at a jump may be taken for late.
    judge(claims, report, "clock jumps", failed=4 * 10)
    end(claims, server)


def bad_models(claims):
    """Versions that are half copied, corrupt, empty or vanish; files of the served one that vanish."""
    path = repository("models")
    server = Server(path)
    client = start_load(server, 16)
    time.sleep(2)
    good = model_file(2).read_bytes()
    middle = len(good) // 2
    for version, content in enumerate((good[:middle], good[:middle] + bytes(64) + good[middle + 64:], b"", b"HILOMOE\n"), 2):
        staging = path / "bench" / f".{version}.tmp"
        staging.mkdir()
        (staging / "model.hilomoe").write_bytes(content)
        staging.rename(path / "bench" / str(version))
    (path / "bench" / "9").mkdir()  # without a file
    (path / "bench" / "latest").mkdir()
    time.sleep(4)
    claims.correct("version 1 still serves", server.metric("hilomoe_requests_total", version=1, code="OK") > 0)
    for version in (2, 3, 4, 5):
        withdraw(path / "bench", version)
    publish(1, path / "bench", 20)
    served = wait_until(lambda: server.metric("hilomoe_requests_total", version=20, code="OK") > 0, 10)
    claims.correct("the next good version serves", served)
    shutil.rmtree(path / "bench" / "1")  # piece by piece, as an operator would
    report = client.wait()
    judge(claims, report, "bad and vanished versions")
    # The only version goes, and comes back.
    (path / "bench" / "20" / "model.hilomoe").unlink()
    time.sleep(2)
    gone = start_load(server, 2).wait()
    claims.correct("without any version: UNAVAILABLE, or scores from memory", server.alive() and gone["failed"] +
                   gone["good"] == gone["sent"] and set(gone["by_code"]) <= {"OK", "UNAVAILABLE"}, f"{gone['by_code']}")
    shutil.rmtree(path / "bench" / "20")
    publish(1, path / "bench", 21)
    back = wait_until(lambda: start_load(server, 1).wait()["good"] > 0, 15)
    claims.correct("a version that comes serves again", back)
    end(claims, server)


def truncated_while_mapped(claims):
    """A mapped file is truncated and overwritten under load: right scores or UNAVAILABLE."""
    path = fresh("faults_mapped")
    (path / "bench" / "1").mkdir(parents=True)
    file = path / "bench" / "1" / "model.hilomoe"
    shutil.copyfile(model_file(1), file)
    server = Server(path, model_memory="MMAP")
    client = start_load(server, 8)
    time.sleep(3)
    os.truncate(file, file.stat().st_size // 3)
    report = client.wait()
    claims.correct("scores were right, or there were none", report["exit_code"] == 0, f"{report['scores']}")
    claims.correct("the server lives and says UNAVAILABLE", server.alive() and set(report["by_code"]) <= {"OK", "UNAVAILABLE"}
                   and report["by_code"].get("UNAVAILABLE", 0) > 0, f"{report['by_code']}: {report['first_failure']}")
    server.terminate()


FAULTS = (kill_and_restart, client_that_never_reads, idle_connections, slow_loris, cancelled_calls, rapid_resets,
          scrapes, full_disk, clock_jumps, bad_models, truncated_while_mapped)


def main():
    wanted = sys.argv[1:]
    unknown = set(wanted) - {fault.__name__ for fault in FAULTS}
    if unknown:
        sys.exit(f"faults.py: no such fault: {sorted(unknown)}; there are {[fault.__name__ for fault in FAULTS]}")
    # The servers inherit it.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    claims = Claims()
    shutil.rmtree(WORK / "faults_files", ignore_errors=True)
    for fault in FAULTS:
        if wanted and fault.__name__ not in wanted:
            continue
        print(f"\n{fault.__name__}: {fault.__doc__.strip()}", flush=True)
        try:
            fault(claims)
        except Skipped as reason:
            print(f"skipped: {reason}")
    claims.end()


if __name__ == "__main__":
    main()
