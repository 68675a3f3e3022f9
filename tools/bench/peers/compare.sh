#!/usr/bin/env bash
# hilomoe beside ONNX Runtime and PyTorch on the bench model: makes the model, exports it, checks that all give the same
# scores, and prints the table.
#   tools/bench/peers/compare.sh
# Environment: WORK=build/peers (directory; its model and node modules are reused), CONFIG (of another model than
# tools/bench/bench_model.textproto), ROUNDS=20, RUN_MS=100 (of one row, one number of candidates, one round), MODELS
# (more "NAME=MODEL_FILE", converted from WORK/checkpoint), BIN (directory of hilomoe-convert and
# hilomoe-bench-peer; unset: builds them), OURS (another command that answers as hilomoe-bench-peer does),
# PYTHON=/usr/bin/python3, NODE=node, BUSY=1 (measure on a busy machine all the same, to try the script).
set -euo pipefail
if [ $# -ne 0 ]; then sed -n 2,9p "$0" >&2; exit 2; fi

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=$(realpath -m "${WORK:-$root/build/peers}")
config=${CONFIG:-$root/tools/bench/bench_model.textproto}
python=${PYTHON:-/usr/bin/python3}
node=${NODE:-node}
onnxruntime=1.30.0

if [ -n "${BIN:-}" ]; then groups=(peers); else groups=(build peers); fi
"$root/tools/install_packages.sh" "${groups[@]}"
if ! command -v "$node" >/dev/null || ! command -v npm >/dev/null; then
  echo "compare.sh: ONNX Runtime is driven from node: install nodejs and npm" >&2
  exit 1
fi
if [ -z "${BIN:-}" ]; then
  mkdir -p "$root/build"
  cd "$root"
  cmake --preset release >build/configure.log 2>&1 || { cat build/configure.log >&2; exit 1; }
  cmake --build --preset release --target hilomoe-convert hilomoe-bench-peer
  cd "$OLDPWD"
fi
bin=${BIN:-$root/build/release/bin}

mkdir -p "$work"
if [ ! -d "$work/node/node_modules/onnxruntime-node" ]; then
  # Without its script, which fetches the libraries for GPUs.
  npm install --prefix "$work/node" --ignore-scripts --no-audit --no-fund --loglevel=error \
    "onnxruntime-node@$onnxruntime"
fi

# Made anew when the config or what makes it has changed.
makers=("$here"/{make_model,folded,export_onnx}.py "$root"/tools/pytorch/*.py)
made_of=$(cat "$config" "${makers[@]}" | sha256sum)
if [ "$(cat "$work/made_of" 2>/dev/null)" != "$made_of" ]; then
  rm -rf "$work/made_of" "$work/checkpoint" "$work/onnx"
  "$python" "$here/make_model.py" --config="$config" --output="$work"
  "$python" "$here/export_onnx.py" --checkpoint="$work/checkpoint" --requests="$work/requests.npz" --output="$work/onnx"
  echo "$made_of" >"$work/made_of"
fi
models=()
for precision in float32 bfloat16 int8; do
  "$bin/hilomoe-convert" --checkpoint="$work/checkpoint" --output="$work/$precision.hilomoe" --embeddings=$precision \
    --dense=$precision --experts=$precision
  models+=("--model=$precision=$work/$precision.hilomoe")
done

busy=$(awk '{ print ($1 > 0.5) }' /proc/loadavg)
for _ in $(seq 30); do  # what made the model may still count
  if [ "$busy" = 0 ] || [ "${BUSY:-0}" = 1 ]; then break; fi
  sleep 5
  busy=$(awk '{ print ($1 > 0.5) }' /proc/loadavg)
done
if [ "$busy" = 1 ] && [ "${BUSY:-0}" != 1 ]; then
  echo "compare.sh: the load average is $(cut -d' ' -f1 /proc/loadavg); wait until the machine is idle" >&2
  exit 1
fi

for model in ${MODELS:-}; do models+=("--model=$model"); done
core=$("$python" -c 'import os; print(max(os.sched_getaffinity(0)))')
NODE_PATH=$work/node/node_modules taskset -c "$core" "$python" "$here/compare.py" --work="$work" \
  --ours="${OURS:-$bin/hilomoe-bench-peer}" --node="$node" --rounds="${ROUNDS:-20}" --ms="${RUN_MS:-100}" "${models[@]}"
