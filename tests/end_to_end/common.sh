# Sourced by the end-to-end tests: BIN (the binaries), WORK (a directory that goes away), and a server to talk to.
set -euo pipefail

BIN="${1:?usage: $0 BIN_DIRECTORY}"
SOURCE="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
WORK="$(mktemp -d)"
SERVER_PID=

cleanup() {
  if [ -n "$SERVER_PID" ]; then kill -KILL "$SERVER_PID" 2>/dev/null || true; fi
  if mountpoint -q "$WORK/full" 2>/dev/null; then umount "$WORK/full" || true; fi
  rm -rf "$WORK"
}
trap cleanup EXIT

fail() { echo "FAILED: $*" >&2; exit 1; }
pass() { echo "ok: $*"; }

# start_server REPOSITORY [flags]: sets SERVER_PID, ADDRESS, METRICS_URL.
start_server() {
  local repository="$1"
  shift
  rm -f "$WORK/ports.json"
  "$BIN/hilomoe-server" --model_repository="$repository" --listen_address=127.0.0.1:0 --metrics_address=127.0.0.1:0 \
    --drain_ms=0 --port_file="$WORK/ports.json" "$@" 2>"$WORK/server.log" &
  SERVER_PID=$!
  for _ in $(seq 300); do
    [ ! -s "$WORK/ports.json" ] || break
    kill -0 "$SERVER_PID" 2>/dev/null || { cat "$WORK/server.log" >&2; fail "the server ended"; }
    sleep 0.1
  done
  local listen metrics
  listen=$(sed -n 's/.*"listen_port": *\([0-9]*\).*/\1/p' "$WORK/ports.json")
  metrics=$(sed -n 's/.*"metrics_port": *\([0-9]*\).*/\1/p' "$WORK/ports.json")
  ADDRESS="127.0.0.1:$listen"
  METRICS_URL="http://127.0.0.1:$metrics/metrics"
}

# SIGTERM must end it with exit code 0.
stop_server() {
  kill -TERM "$SERVER_PID"
  local code=0
  wait "$SERVER_PID" || code=$?
  SERVER_PID=
  [ "$code" -eq 0 ] || { cat "$WORK/server.log" >&2; fail "the server's exit code is $code"; }
}

# number FILE KEY: the first number under the key of a JSON file.
number() { grep -o "\"$2\": *[-0-9.e]*" "$1" | head -n 1 | sed 's/.*: *//'; }

# same_auc FILE FILE: equal to 1e-6.
same_auc() {
  local a b
  a=$(number "$1" auc)
  b=$(number "$2" auc)
  awk -v a="$a" -v b="$b" 'BEGIN { d = a - b; if (d < 0) d = -d; exit a != "" && b != "" && d <= 1e-6 ? 0 : 1 }' ||
    fail "AUC $a and $b differ"
  echo "AUC $a = $b"
}

# refused CODE PATTERN COMMAND...: it must exit with CODE and one line on stderr that matches PATTERN.
refused() {
  local expected="$1" pattern="$2" code=0
  shift 2
  timeout 60 "$@" >"$WORK/stdout" 2>"$WORK/stderr" || code=$?
  [ "$code" -eq "$expected" ] || { cat "$WORK/stderr" >&2; fail "exit code $code instead of $expected: $*"; }
  grep -v 'rows/s' "$WORK/stderr" >"$WORK/errors" || true
  tail -n 1 "$WORK/errors" | grep -qE "$pattern" || { cat "$WORK/stderr" >&2; fail "no '$pattern' from: $*"; }
  pass "refused: $(tail -n 1 "$WORK/errors" | cut -c1-200)"
}
