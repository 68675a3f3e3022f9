#!/usr/bin/env bash
# make_model.sh BIN OUT: trains a small model on a generated log, for the tests of deploy/.
#   OUT/models/demo/1/model.hilomoe   model repository
#   OUT/log.csv, OUT/log_scores.csv           rows, and the trainer's scores of them
#   OUT/request.csv, OUT/request_scores.csv   the first request of them
set -euo pipefail
source "$(dirname "$0")/common.sh"
bin=$1 out=$2

rm -rf "$out"
mkdir -p "$out/data"
"$bin/hilomoe-train" generate --directory="$out/data" --rows=20000 --compression=none
sed 's/\.csv\.gz"/.csv"/' "$repository/tools/train/experiments/demo.textproto" >"$out/config.textproto"
"$bin/hilomoe-train" train --config="$out/config.textproto" --data_dir="$out/data" --output="$out/run" --threads=2
"$bin/hilomoe-convert" --checkpoint="$out/run/checkpoint" --output="$out/models/demo/1/model.hilomoe"

mv "$out/data/test.csv" "$out/log.csv"
awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "request_id") column = i }
         NR == 2 { first = $column }
         NR == 1 || $column == first' "$out/log.csv" >"$out/request.csv"
for log in log request; do
  "$bin/hilomoe-train" evaluate --checkpoint="$out/run/checkpoint" --scores="$out/${log}_scores.csv" "$out/$log.csv"
done
rm -rf "$out/data" "$out/run"
# Read by users other than the one who made it.
chmod -R a+rX "$out/models"
