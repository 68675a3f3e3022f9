#!/usr/bin/env bash
# From nothing to scored requests: installs packages, builds, generates a click log, trains in three stages, converts,
# serves on loopback and scores the test rows over gRPC.
#   tools/quickstart.sh [--keep] [--rows N] [--directory DIR]
#     --keep       leave the server running and say how to call it
#     --rows       of the generated log (default 1,500,000)
#     --directory  for log, checkpoint and models (default build/quickstart)
set -euo pipefail
cd "$(dirname "$0")/.."

keep=false
rows=1500000
work=build/quickstart
while [ $# -gt 0 ]; do
  case "$1" in
    --keep) keep=true ;;
    --rows) rows="${2:?--rows needs a number}"; shift ;;
    --directory) work="${2:?--directory needs a path}"; shift ;;
    *) echo "quickstart.sh: unknown argument '$1'" >&2; sed -n 2,8p "$0" >&2; exit 2 ;;
  esac
  shift
done

begin=$SECONDS
step() { printf '\n== %s (after %d s)\n' "$1" $((SECONDS - begin)); }

server_pid=
stop_server() {
  if [ -n "$server_pid" ]; then
    kill -TERM "$server_pid" 2>/dev/null || true
    wait "$server_pid" 2>/dev/null || true
  fi
}
trap stop_server EXIT

step "packages"
tools/install_packages.sh build run

step "build"
mkdir -p build
cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log; exit 1; }
cmake --build --preset release --target hilomoe-train hilomoe-convert hilomoe-server hilomoe-client
bin=build/release/bin

step "generate a click log of $rows rows"
rm -rf "$work"
mkdir -p "$work"
"$bin/hilomoe-train" generate --directory="$work/log" --rows="$rows" --users=1500 --items=600

step "train in three stages"
train_begin=$SECONDS
"$bin/hilomoe-train" train --config=tools/train/experiments/demo.textproto --data_dir="$work/log" --output="$work/run"
train_seconds=$((SECONDS - train_begin))

step "convert"
"$bin/hilomoe-convert" --checkpoint="$work/run/checkpoint" --output="$work/models/demo/1/model.hilomoe"

step "serve"
"$bin/hilomoe-server" --model_repository="$work/models" --listen_address=127.0.0.1:0 --metrics_address=127.0.0.1:0 \
  --drain_ms=0 --port_file="$work/ports.json" >"$work/server.log" 2>&1 &
server_pid=$!
for _ in $(seq 100); do
  if [ -s "$work/ports.json" ]; then break; fi
  if ! kill -0 "$server_pid" 2>/dev/null; then cat "$work/server.log" >&2; exit 1; fi
  sleep 0.1
done
port() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$work/ports.json"; }
address="127.0.0.1:$(port listen_port)"
echo "serving on $address, metrics on http://127.0.0.1:$(port metrics_port)/metrics"

step "score the test rows over gRPC"
"$bin/hilomoe-client" score --server="$address" --input="$work/log/test.csv.gz" --output="$work/served.csv" \
  --report="$work/served.json"
"$bin/hilomoe-train" evaluate --checkpoint="$work/run/checkpoint" --scores="$work/evaluated.csv" \
  --report="$work/evaluated.json" "$work/log/test.csv.gz"

step "result"
number() { grep -o "\"$2\": *[-0-9.e]*" "$1" | head -n 1 | sed 's/.*: *//'; }
# ceiling.json has an object per split; the test split's is the last.
ceiling=$(grep -o '"auc": *[0-9.]*' "$work/log/ceiling.json" | tail -n 1 | sed 's/.*: *//')
printf 'AUC      trained %.6f  served %.6f  true probabilities %.6f\n' \
  "$(number "$work/evaluated.json" auc)" "$(number "$work/served.json" auc)" "$ceiling"
printf 'scores   '
tools/compare_scores.sh "$work/evaluated.csv" "$work/served.csv"
printf 'speed    %.0f requests/s, %.0f candidates/s\n' \
  "$(number "$work/served.json" requests_per_second)" "$(number "$work/served.json" rows_per_second)"
printf 'latency  p50 %.2f ms  p90 %.2f ms  p99 %.2f ms\n' "$(number "$work/served.json" p50)" \
  "$(number "$work/served.json" p90)" "$(number "$work/served.json" p99)"
printf 'report   %s\n' "$work/run/report.html"
printf 'time     training %d s, all %d s\n' "$train_seconds" $((SECONDS - begin))

if $keep; then
  cat <<END

The server is still running (pid $server_pid). Call it:
  $bin/hilomoe-client score --server=$address --input=$work/log/test.csv.gz --output=scores.csv
  curl http://127.0.0.1:$(port metrics_port)/metrics
Stop it:
  kill $server_pid
END
  disown "$server_pid"
  server_pid=
fi
