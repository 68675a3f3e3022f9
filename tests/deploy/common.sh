# shellcheck shell=bash disable=SC2034
# What the tests of deploy/ share; to be sourced. Sets `repository`, and a trap that ends what was started.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
started=()  # pids, ended in reverse order

end_started() {
  local i
  for ((i = ${#started[@]} - 1; i >= 0; i--)); do
    kill "${started[i]}" 2>/dev/null || continue
    wait "${started[i]}" 2>/dev/null || true
  done
  started=()
}
trap end_started EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

exec 3>&2  # also from within what wait_for keeps quiet
fail() {
  echo "FAILED: $*" >&3
  exit 1
}

# CTest counts exit code 77 as skipped.
skip() {
  echo "skipped: $*"
  exit 77
}

# need PROGRAM...: skips without them.
need() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || skip "$program is not installed"
  done
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || fail "$what: not within the time"
    sleep 0.2
  done
}

# free_ports N: that many ports of the loopback interface that are free now.
free_ports() {
  python3 - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
PYTHON
}

# health URL SERVICE CURL_OPTION...: grpc.health.v1.Health/Check as Kubernetes' probes ask it; succeeds when it says
# SERVING.
health() {
  local response url=$1 service=$2
  shift 2
  # One message: flag 0, length in 4 bytes; in it field 1, the service's name, with its length.
  response=$(printf "\\x00\\x00\\x00\\x00\\x$(printf %02x $((${#service} + 2)))\\x0a\\x$(printf %02x ${#service})%s" "$service" |
    curl -sS --max-time 5 --http2-prior-knowledge "$@" -H 'content-type: application/grpc' -H 'te: trailers' \
      --data-binary @- "$url/grpc.health.v1.Health/Check" | od -An -v -tx1 | tr -d ' \n')
  [ "$response" = 00000000020801 ]  # field 1, the status, = SERVING (1)
}

# port FILE NAME: out of what --port_file has written.
port() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"; }

# metric PORT SERIES: the value that the server on 127.0.0.1 shows for this series, written as in its answer.
metric() {
  curl -sS --max-time 5 "http://127.0.0.1:$1/metrics" |
    awk -v series="$2" '$1 == series { print $2; found = 1 } END { exit !found }'
}

# compare_scores EXPECTED ACTUAL ROWS: two files with a header and a column `score`. Trainer and server add in
# different orders; of sums of some hundred terms of size 1 in float32, 1e-5 is far above what that makes.
compare_scores() {
  python3 - "$@" <<'PYTHON'
import csv, sys
expected, actual = ([float(row["score"]) for row in csv.DictReader(open(path))] for path in sys.argv[1:3])
if len(expected) != int(sys.argv[3]) or len(actual) != len(expected):
    sys.exit(f"FAILED: {sys.argv[3]} rows, {len(expected)} expected scores, {len(actual)} scores")
worst = max(abs(e - a) for e, a in zip(expected, actual))
if not worst <= 1e-5:
    sys.exit(f"FAILED: a score is off by {worst}")
if max(expected) - min(expected) < 1e-3:
    sys.exit("FAILED: all scores are the same; the comparison proves nothing")
print(f"{len(actual)} scores equal the trainer's within {worst:.1e}")
PYTHON
}
