"""Servers and loads for the scripts beside this: one core for the server, the other for the client.

Environment: BIN (directory of the binaries), SERVER_BIN (of the server's, one built with a sanitizer say), WORK
(directory; model files in it are used again), IDS=200000 (of every feature of the bench model), SERVER_CORES=0,
CLIENT_CORES=1, SERVER_FLAGS (more of them).
"""
import atexit
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(os.environ.get("BIN", ROOT / "build/release/bin"))
SERVER_BIN = pathlib.Path(os.environ.get("SERVER_BIN", BIN))
WORK = pathlib.Path(os.environ.get("WORK", ROOT / "build/serving")).absolute()
IDS = int(os.environ.get("IDS", "200000"))
SERVER_CORES = os.environ.get("SERVER_CORES", "0")
CLIENT_CORES = os.environ.get("CLIENT_CORES", "1")
TICKS = os.sysconf("SC_CLK_TCK")
RUN = WORK / f"run_{os.getpid()}"  # logs and reports, which go unless something failed

_processes = []


def _stop_all():
    for process in _processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def _exit(signal_number, _frame):
    sys.exit(128 + signal_number)


atexit.register(_stop_all)
signal.signal(signal.SIGTERM, _exit)
signal.signal(signal.SIGINT, _exit)


def number(name, default):
    """A number from the environment."""
    return type(default)(os.environ.get(name, default))


def spawn(command, cores, **kwargs):
    process = subprocess.Popen(["taskset", "-c", cores, *map(str, command)], **kwargs)
    _processes.append(process)
    return process


def run_directory():
    RUN.mkdir(parents=True, exist_ok=True)
    return RUN


def fresh(name):
    """An empty directory in WORK."""
    path = WORK / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def model_file(seed):
    """The bench model with weights from the seed."""
    path = WORK / f"bench_{IDS}_{seed}.hilomoe"
    if not path.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        subprocess.run([BIN / "hilomoe-bench", "model", f"--output={path}", f"--model_seed={seed}",
                        f"--model_ids={IDS}"], check=True)
    return path


def publish(seed, model_directory, version):
    """Lets the version appear at once, whole: a link in a directory that is renamed. Returns when."""
    staging = pathlib.Path(model_directory) / f".{version}.tmp"
    staging.mkdir(parents=True)
    os.link(model_file(seed), staging / "model.hilomoe")
    now = time.time()
    staging.rename(staging.with_name(str(version)))
    return now


def withdraw(model_directory, version):
    """The version disappears at once."""
    path = pathlib.Path(model_directory) / str(version)
    gone = path.with_name(f".{version}.tmp")
    path.rename(gone)
    shutil.rmtree(gone)


class Process:
    """A server under test, its log in `log`."""

    def __init__(self, command, cores, name, log=None):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=name + "_", dir=run_directory()))
        self.log = pathlib.Path(log or self.directory / "log")
        self.ports_file = self.directory / "ports.json"
        with open(self.log, "wb") as log:
            self.process = spawn([*command, f"--port_file={self.ports_file}"], cores, stdout=log, stderr=log)
        self.pid = self.process.pid
        self.ports = {}
        self.await_ports()
        self.address = f"127.0.0.1:{self.ports['listen_port']}"

    def await_ports(self):
        until = time.time() + 120
        while not self.ports_file.exists():
            if self.process.poll() is not None or time.time() > until:
                sys.exit(f"{self.process.args}: does not serve:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.02)
        self.ports = json.loads(self.ports_file.read_text())

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_bytes(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+)", status).group(1)) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def alive(self):
        return self.process.poll() is None

    def terminate(self, timeout=60):
        """SIGTERM; the exit code, or None for one that had to be killed."""
        if self.alive():
            self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self):
        self.process.kill()
        self.process.wait()


class Server(Process):
    """hilomoe-server over a model repository. Keyword arguments are its flags."""

    def __init__(self, repository, cores=SERVER_CORES, environment=None, log=None, **flags):
        flags = {"listen_address": "127.0.0.1:0", "metrics_address": "127.0.0.1:0", "drain_ms": 100, **flags}
        command = [SERVER_BIN / "hilomoe-server", f"--model_repository={repository}",
                   *(f"--{name}={value}" for name, value in flags.items()),
                   *os.environ.get("SERVER_FLAGS", "").split()]
        if environment:
            command = ["env", *(f"{name}={value}" for name, value in environment.items()), *command]
        super().__init__(command, cores, "server", log)

    def metrics(self, timeout=10):
        url = f"http://127.0.0.1:{self.ports['metrics_port']}/metrics"
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return response.read().decode()

    def metric(self, name, **labels):
        """The sum over the series of a name that have these labels."""
        return sum_of(self.metrics(), name, **labels)


def sum_of(exposition, name, **labels):
    total = 0.0
    for line in exposition.splitlines():
        match = re.match(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)", line)
        if not match or match.group(1) != name:
            continue
        has = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
        if all(has.get(label) == str(value) for label, value in labels.items()):
            total += float(match.group(3))
    return total


class Echo(Process):
    """hilomoe-client echo."""

    def __init__(self, scores=100, cores=SERVER_CORES):
        super().__init__([BIN / "hilomoe-client", "echo", f"--scores={scores}"], cores, "echo")


class Load:
    """hilomoe-client bench under way. Keyword arguments are its flags."""

    def __init__(self, address, cores=CLIENT_CORES, **flags):
        self.report_file = pathlib.Path(tempfile.mkdtemp(prefix="load_", dir=run_directory())) / "report.json"
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        if address:
            arguments.append(f"--server={address}")
        self.seconds = float(flags.get("duration", 10)) + float(flags.get("warmup", 1))
        self.process = spawn([BIN / "hilomoe-client", "bench", f"--report={self.report_file}", *arguments], cores,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def wait(self):
        """The report; `exit_code` and `text` in it are the process's."""
        try:
            _, text = self.process.communicate(timeout=self.seconds + 120)
        except subprocess.TimeoutExpired:
            sys.exit("the load hangs")
        if not self.report_file.exists():
            sys.exit(f"the load failed: {text}")
        report = json.loads(self.report_file.read_text())
        report["exit_code"] = self.process.returncode
        report["text"] = text
        return report


def load(address, **flags):
    return Load(address, **flags).wait()


def quartiles(values):
    """(median, first quartile, third quartile)."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def table(rows):
    """Prints rows of cells, the first of a row to the left."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join(cells).rstrip(), flush=True)


class Claims:
    """What was to be shown. Speeds that are missed are printed; claims about correctness that fail make exit code 1."""

    def __init__(self):
        self.failed = False

    def correct(self, claim, holds, detail=""):
        print(f"{'ok    ' if holds else 'FAILED'} {claim}{': ' if detail else ''}{detail}", flush=True)
        self.failed |= not holds
        return holds

    def speed(self, claim, holds, detail=""):
        print(f"{'met   ' if holds else 'MISSED'} {claim}{': ' if detail else ''}{detail}", flush=True)
        return holds

    def end(self):
        if self.failed:
            sys.exit(f"failed; logs and reports are in {RUN}")
        shutil.rmtree(RUN, ignore_errors=True)
        sys.exit(0)
