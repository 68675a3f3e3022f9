#!/usr/bin/env bash
# How fast hilomoe-train trains a config, beside PyTorch: rows/s of the training steps alone, the two in turn.
#   tools/pytorch/compare_speed.sh CONFIG DATA_DIR
# Environment: HILOMOE_TRAIN (program), PYTHON (one with torch), WORK (directory; its caches are reused), ROUNDS=5,
# EPOCHS=2 (of each stage; a one_pass config takes one), CORES="1 2" (each measured by itself), TOLERANCE=0.005
# (between the valid AUCs; beyond it the measurement fails), PYTORCH_FLAGS (more flags of train.py), ADD (a line added to
# the config, such as 'product_precision: BFLOAT16'), BUSY=1 (measure on a busy machine all the same, to try the script).
# Both programs are bound to the same cores. hilomoe takes a thread a core; for PyTorch one epoch tells which number of
# threads, OMP_WAIT_POLICY, ATEN_CPU_CAPABILITY and, where the config says LAZY, which update of the embeddings is
# fastest, and that is what is measured; where the config says BFLOAT16, once in float32 and once in autocast.
set -euo pipefail
if [ $# -ne 2 ]; then sed -n 2,11p "$0" >&2; exit 2; fi

here=$(cd "$(dirname "$0")" && pwd)
hilomoe_train=${HILOMOE_TRAIN:-$here/../../build/release/bin/hilomoe-train}
python=${PYTHON:-/usr/bin/python3}
data_dir=$2
work=${WORK:-$(mktemp -d)}
mkdir -p "$work"

busy=$(awk '{ print ($1 > 0.5) }' /proc/loadavg)
if [ "$busy" = 1 ] && [ "${BUSY:-0}" != 1 ]; then
  echo "compare_speed.sh: the load average is $(cut -d' ' -f1 /proc/loadavg); wait until the machine is idle" >&2
  exit 1
fi

# pytorch CORES CONFIG OUTPUT THREADS POLICY CAPABILITY UPDATE PRECISION [FLAG...]: trains, and leaves the result in OUTPUT.
pytorch() {
  local cores=$1 config=$2 output=$3 threads=$4 policy=$5 capability=$6 update=$7
  local environment=(OMP_WAIT_POLICY="$policy")
  if [ "$capability" != default ]; then environment+=(ATEN_CPU_CAPABILITY="$capability"); fi
  local flags=("${@:9}")
  if [ "$8" = bfloat16 ]; then flags+=(--bfloat16); fi
  if [ "$update" = dense ]; then flags+=(--dense_embeddings); fi
  # shellcheck disable=SC2086  # PYTORCH_FLAGS is a list
  taskset -c "$cores" env "${environment[@]}" "$python" "$here/train.py" --config="$config" --data_dir="$data_dir" \
    --cache_dir="$work/pytorch_cache" --threads="$threads" --output="$output" ${PYTORCH_FLAGS:-} "${flags[@]}" \
    >"$work/pytorch.log" 2>&1 || { tail -5 "$work/pytorch.log" >&2; exit 1; }
}

"$python" "$here/train.py" --config="$1" --epochs="${EPOCHS:-2}" --write_config="$work/config.textproto"
"$python" "$here/train.py" --config="$1" --epochs=1 --write_config="$work/probe.textproto"
if [ -n "${ADD:-}" ]; then echo "$ADD" >>"$work/config.textproto"; fi
precisions=(float32)
if grep -q 'product_precision: BFLOAT16' "$work/config.textproto"; then precisions+=(bfloat16); fi
capabilities=(default)
if grep -qm1 avx512bw /proc/cpuinfo; then capabilities+=(avx512); fi
updates=(configured)
if grep -q 'embedding_update: LAZY' "$work/config.textproto"; then updates+=(dense); fi
allowed=$("$python" -c 'import os; print(*sorted(os.sched_getaffinity(0)))')

for count in ${CORES:-1 2}; do
  read -ra usable <<<"$allowed"
  if [ "$count" -gt "${#usable[@]}" ]; then echo "compare_speed.sh: $count cores: only ${#usable[@]}" >&2; exit 1; fi
  cores=$(IFS=,; echo "${usable[*]:0:count}")

  variants=()
  for precision in "${precisions[@]}"; do
    fastest=0
    for ((threads = 1; threads <= count; ++threads)); do
      for policy in passive active; do
        if [ "$threads" = 1 ] && [ "$policy" = active ]; then continue; fi
        for capability in "${capabilities[@]}"; do
          for update in "${updates[@]}"; do
            pytorch "$cores" "$work/probe.textproto" "$work/probe.json" "$threads" "$policy" "$capability" "$update" \
              "$precision"
            rate=$("$python" -c 'import json, sys; print(int(json.load(open(sys.argv[1]))["rows_per_s"]))' \
              "$work/probe.json")
            if [ "$rate" -gt "$fastest" ]; then
              fastest=$rate variant="$threads $policy $capability $update $precision"
            fi
          done
        done
      done
    done
    variants+=("$variant")
    read -ra v <<<"$variant"
    echo "$count core(s); PyTorch's fastest in ${v[4]}: ${v[0]} threads, OMP_WAIT_POLICY=${v[1]}, ATen ${v[2]}," \
      "embeddings' update ${v[3]}"
  done

  rm -f "$work/speed.$count".*.jsonl
  for ((round = 1; round <= ${ROUNDS:-5}; ++round)); do
    rm -rf "$work/run"
    taskset -c "$cores" "$hilomoe_train" train --config="$work/config.textproto" --data_dir="$data_dir" \
      --output="$work/run" --cache_dir="$work/hilomoe_cache" --threads="$count" --seed="$round" \
      >"$work/hilomoe.log" 2>&1 || { tail -5 "$work/hilomoe.log" >&2; exit 1; }
    for variant in "${variants[@]}"; do
      read -ra v <<<"$variant"
      results=$work/speed.$count.${v[4]}.jsonl
      "$python" "$here/compare.py" hilomoe "$work/run" >>"$results"
      pytorch "$cores" "$work/config.textproto" "$work/run.json" "${v[@]}" --seed="$round"
      "$python" "$here/compare.py" pytorch "$work/run.json" >>"$results"
    done
  done
  for precision in "${precisions[@]}"; do
    echo "PyTorch in $precision:"
    "$python" "$here/compare.py" speed "$work/speed.$count.$precision.jsonl" --tolerance="${TOLERANCE:-0.005}"
  done
done
