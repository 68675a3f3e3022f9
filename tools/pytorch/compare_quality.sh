#!/usr/bin/env bash
# Whether hilomoe-train and PyTorch reach the same quality: test AUC and logloss of a config over several seeds.
#   tools/pytorch/compare_quality.sh CONFIG DATA_DIR WORK
# Environment: HILOMOE_TRAIN (program), PYTHON (one with torch), SEEDS=5, THREADS=0 (as many as there are),
# PYTORCH_FLAGS (more flags of train.py). WORK keeps each seed's results: a second call goes on from there, also with
# more seeds.
set -euo pipefail
if [ $# -ne 3 ]; then sed -n 2,6p "$0" >&2; exit 2; fi

here=$(cd "$(dirname "$0")" && pwd)
hilomoe_train=${HILOMOE_TRAIN:-$here/../../build/release/bin/hilomoe-train}
python=${PYTHON:-/usr/bin/python3}
config=$1 data_dir=$2 work=$3
mkdir -p "$work"
# Results of another config must not be mixed in.
if [ -e "$work/config.textproto" ] && ! cmp -s "$config" "$work/config.textproto"; then
  echo "compare_quality.sh: '$work' holds the results of another config" >&2
  exit 1
fi
cp "$config" "$work/config.textproto"

for ((seed = 1; seed <= ${SEEDS:-5}; ++seed)); do
  if [ ! -e "$work/hilomoe.$seed.json" ]; then
    rm -rf "$work/run"
    "$hilomoe_train" train --config="$config" --data_dir="$data_dir" --output="$work/run" \
      --cache_dir="$work/hilomoe_cache" --threads="${THREADS:-0}" --seed="$seed" \
      >"$work/hilomoe.log" 2>&1 || { tail -5 "$work/hilomoe.log" >&2; exit 1; }
    "$python" "$here/compare.py" hilomoe "$work/run" >"$work/hilomoe.json"
    mv "$work/hilomoe.json" "$work/hilomoe.$seed.json"
  fi
  if [ ! -e "$work/pytorch.$seed.json" ]; then
    # shellcheck disable=SC2086  # PYTORCH_FLAGS is a list
    "$python" "$here/train.py" --config="$config" --data_dir="$data_dir" --cache_dir="$work/pytorch_cache" \
      --threads="${THREADS:-0}" --seed="$seed" --output="$work/run.json" ${PYTORCH_FLAGS:-} \
      >"$work/pytorch.log" 2>&1 || { tail -5 "$work/pytorch.log" >&2; exit 1; }
    "$python" "$here/compare.py" pytorch "$work/run.json" >"$work/pytorch.json"
    mv "$work/pytorch.json" "$work/pytorch.$seed.json"
  fi
done
: >"$work/results.jsonl"
for ((seed = 1; seed <= ${SEEDS:-5}; ++seed)); do
  cat "$work/hilomoe.$seed.json" "$work/pytorch.$seed.json" >>"$work/results.jsonl"
done
"$python" "$here/compare.py" quality "$work/results.jsonl"
