#!/usr/bin/env bash
# The scores of models trained on real logs, served and flat, equal the trainer's. Needs HILOMOE_DATA with frappe/ and
# trivago/ (train, valid and test .csv.gz each).
source "$(dirname "$0")/common.sh"

data="${HILOMOE_DATA:-}"
if [ ! -d "$data/frappe" ] || [ ! -d "$data/trivago" ]; then
  echo "skipped: HILOMOE_DATA does not name a directory with frappe and trivago"
  exit 77
fi
mkdir -p "$WORK/data"
ln -s "$(realpath "$data/frappe")" "$WORK/data/frappe"
"$SOURCE/tools/train/experiments/prepare_trivago.py" "$data" "$WORK/data"
data=$WORK/data
for config in "$SOURCE"/tools/train/experiments/{frappe_hilomoe,trivago_hilomoe}.textproto; do
  name=$(basename "$config" .textproto)
  log="$data/${name%%_*}/test.csv.gz"
  # All experts kept, and the best four of a layer.
  for top_k in "" " top_k: 4"; do
    model=$name${top_k:+_top4}
    sed -E "s/(experts_per_layer: [0-9]+)( top_k: [0-9]+)?/\1$top_k/" "$config" >"$WORK/$model.textproto"
    if ! grep -q '^one_pass' "$config"; then
      # Few epochs: what is compared are scores, not quality.
      sed -i -e 's/^  experts: false/  experts: false epochs: 2/' -e 's/^  epochs: .*//' -e 's/^  name: "joint"/& epochs: 1/' \
        -e 's/^  train { group: EXPERT learning_rate: 3e-4 }/  epochs: 1 train { group: EXPERT learning_rate: 3e-3 }/' \
        "$WORK/$model.textproto"
    fi
    "$BIN/hilomoe-train" train --config="$WORK/$model.textproto" --data_dir="$data" --output="$WORK/$model" 2>"$WORK/train.log" ||
      { cat "$WORK/train.log" >&2; fail "training $model"; }
    "$BIN/hilomoe-convert" --checkpoint="$WORK/$model/checkpoint" --output="$WORK/models/$model/1/model.hilomoe"
  done
  start_server "$WORK/models"
  for model in "$name" "${name}_top4"; do
    "$BIN/hilomoe-train" evaluate --checkpoint="$WORK/$model/checkpoint" --scores="$WORK/evaluated.csv" --tie_gaps \
      --report="$WORK/evaluated.json" "$log" 2>/dev/null
    for flat in "" --flat; do
      "$BIN/hilomoe-client" score --server="$ADDRESS" --model="$model" $flat --input="$log" --output="$WORK/served.csv" \
        --report="$WORK/served.json" 2>"$WORK/client.log"
      head -n 2 "$WORK/client.log" | tail -n 1
      echo "$model $flat: $(number "$WORK/served.json" requests) requests"
      "$SOURCE/tools/compare_scores.sh" "$WORK/evaluated.csv" "$WORK/served.csv" || fail "$model $flat: scores differ"
      same_auc "$WORK/evaluated.json" "$WORK/served.json"
    done
  done
  stop_server
  rm -rf "$WORK/models"
done
