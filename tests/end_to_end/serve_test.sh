#!/usr/bin/env bash
# A model trained on a generated log gives the same scores through the server as through the trainer; requests with
# many candidates give the same as flat rows; what is broken is refused with one line and leaves nothing behind.
source "$(dirname "$0")/common.sh"

"$BIN/hilomoe-train" generate --directory="$WORK/log" --rows=30000 --users=100 --items=60 --compression=zstd \
  2>/dev/null
sed -e 's/csv\.gz/csv.zst/' -e 's/epochs: 2/epochs: 1/' "$SOURCE/tools/train/experiments/demo.textproto" >"$WORK/dense.textproto"
sed -e 's/experts_per_layer: 16/experts_per_layer: 16 top_k: 4/' "$WORK/dense.textproto" >"$WORK/topk.textproto"
for model in dense topk; do
  "$BIN/hilomoe-train" train --config="$WORK/$model.textproto" --data_dir="$WORK/log" --output="$WORK/$model" 2>/dev/null
  "$BIN/hilomoe-convert" --checkpoint="$WORK/$model/checkpoint" --output="$WORK/models/$model/3/model.hilomoe"
done
# Not versions: a half-copied one, a name that is no number, an older one that is never loaded.
mkdir -p "$WORK/models/dense/4" "$WORK/models/dense/backup" "$WORK/models/dense/2"
head -c 1000 "$WORK/models/dense/3/model.hilomoe" >"$WORK/models/dense/4/model.hilomoe.tmp.1"
cp "$WORK/models/dense/3/model.hilomoe" "$WORK/models/dense/backup/"

start_server "$WORK/models"
log="$WORK/log/test.csv.zst"
for model in dense topk; do
  "$BIN/hilomoe-client" score --server="$ADDRESS" --model=$model --input="$log" --output="$WORK/served.csv" \
    --report="$WORK/served.json" 2>/dev/null
  "$BIN/hilomoe-client" score --server="$ADDRESS" --model=$model --flat --input="$log" --output="$WORK/flat.csv" 2>/dev/null
  "$BIN/hilomoe-train" evaluate --checkpoint="$WORK/$model/checkpoint" --scores="$WORK/evaluated.csv" --tie_gaps \
    --report="$WORK/evaluated.json" "$log" 2>/dev/null >&2
  "$SOURCE/tools/compare_scores.sh" "$WORK/evaluated.csv" "$WORK/served.csv" || fail "$model: served scores differ"
  "$SOURCE/tools/compare_scores.sh" "$WORK/evaluated.csv" "$WORK/flat.csv" || fail "$model: flat scores differ"
  [ "$(number "$WORK/served.json" requests)" -lt "$(number "$WORK/served.json" rows)" ] || fail "candidates travel alone"
  [ $model = topk ] || same_auc "$WORK/evaluated.json" "$WORK/served.json"
done
curl -sf "$METRICS_URL" >"$WORK/metrics"
grep -q '^hilomoe_requests_total{.*model="dense".*} [1-9]' "$WORK/metrics" || fail "no request was counted"
grep -q '^hilomoe_stage_duration_seconds_bucket{.*stage="evaluate"' "$WORK/metrics" || fail "no histogram by stage"
pass "metrics count what was served"

score=("$BIN/hilomoe-client" score --server="$ADDRESS" --model=dense --output="$WORK/none.csv")
zstd -dqc "$log" -o "$WORK/all.csv"
head -n 40 "$WORK/all.csv" >"$WORK/good.csv"
header=$(head -n 1 "$WORK/good.csv")
row=$(sed -n 5p "$WORK/good.csv")
# broken NAME PATTERN: the log $WORK/NAME.csv is refused.
broken() { refused 1 "$2" "${score[@]}" --input="$WORK/$1.csv"; }
cut -d, -f1-9,11- "$WORK/good.csv" >"$WORK/missing_column.csv"
broken missing_column "missing_column.csv.*item_id"
{ head -n 5 "$WORK/good.csv"; echo "${row%,*,*},cheap,1"; } >"$WORK/bad_number.csv"
broken bad_number "bad_number.csv:6: column 'price': 'cheap'"
{ head -n 5 "$WORK/good.csv"; echo "1,2,3"; } >"$WORK/short_row.csv"
broken short_row "short_row.csv:6"
{ head -n 5 "$WORK/good.csv"; printf '%s\0\n' "$row"; } >"$WORK/nul_byte.csv"
broken nul_byte "nul_byte.csv:6.*NUL"
gzip -c "$WORK/good.csv" >"$WORK/good.gz"
head -c 300 "$WORK/good.gz" >"$WORK/truncated.csv"
broken truncated "truncated.csv.*truncated|truncated.csv.*ends"
refused 1 "absent.csv: cannot open" "${score[@]}" --input="$WORK/absent.csv"
refused 1 "no space|No space" "${score[@]}" --input="$WORK/good.csv" --output=/dev/full
refused 2 "unknown flag '--inptu'" "${score[@]}" --inptu="$WORK/good.csv"
[ -z "$header" ] || [ ! -e "$WORK/none.csv" ] || fail "a refused log left scores behind"
stop_server
pass "SIGTERM ends the server with exit code 0"

serve=("$BIN/hilomoe-server" --listen_address=127.0.0.1:0 --metrics_address=127.0.0.1:0)
good="$WORK/models/dense/3/model.hilomoe"
# damaged NAME PATTERN: the server refuses the repository whose only model is $WORK/NAME.hilomoe.
damaged() {
  mkdir -p "$WORK/damaged/m/1"
  mv "$WORK/$1.hilomoe" "$WORK/damaged/m/1/model.hilomoe"
  refused 1 "$2" "${serve[@]}" --model_repository="$WORK/damaged"
}
head -c 50000 "$good" >"$WORK/truncated.hilomoe"
damaged truncated "model.hilomoe.*(bytes|truncated)"
size=$(stat -c %s "$good")
cp "$good" "$WORK/flipped.hilomoe"
printf '\xff' | dd of="$WORK/flipped.hilomoe" bs=1 seek=$((size / 2)) conv=notrunc status=none
cmp -s "$good" "$WORK/flipped.hilomoe" && printf '\x00' | dd of="$WORK/flipped.hilomoe" bs=1 seek=$((size / 2)) conv=notrunc status=none
damaged flipped "checksum of tensor"
cp "$good" "$WORK/version.hilomoe"
printf '\x63' | dd of="$WORK/version.hilomoe" bs=1 seek=8 conv=notrunc status=none
damaged version "format version 99"
mkdir -p "$WORK/empty"
refused 1 "empty" "${serve[@]}" --model_repository="$WORK/empty"
refused 1 "absent" "${serve[@]}" --model_repository="$WORK/absent"

# A full disk: a device that is always full, and a small file system that becomes it.
refused 1 "[Nn]o space" "$BIN/hilomoe-train" evaluate --checkpoint="$WORK/dense/checkpoint" --scores=/dev/full "$log"
refused 1 "no regular file" "$BIN/hilomoe-convert" --checkpoint="$WORK/dense/checkpoint" --output=/dev/full
[ -c /dev/full ] || fail "the device was replaced"
mkdir -p "$WORK/full"
if mount -t tmpfs -o size=64k none "$WORK/full" 2>/dev/null; then
  refused 1 "[Nn]o space" "$BIN/hilomoe-convert" --checkpoint="$WORK/dense/checkpoint" --output="$WORK/full/m/1/model.hilomoe"
  refused 1 "rows.bin': [Nn]o space" "$BIN/hilomoe-train" train --config="$WORK/dense.textproto" --data_dir="$WORK/log" --output="$WORK/full/run"
  refused 1 "checkpoint.*[Nn]o space" "$BIN/hilomoe-train" train --config="$WORK/dense.textproto" --data_dir="$WORK/log" --output="$WORK/full/run" --cache_dir="$WORK/cache"
  refused 1 "[Nn]o space" "$BIN/hilomoe-train" generate --directory="$WORK/full/log" --rows=100000
  # metrics.jsonl is a journal: what stands in it is whole.
  left=$(find "$WORK/full" -type f ! -name metrics.jsonl)
  [ -z "$left" ] || fail "left behind on a full disk: $left"
  pass "a full disk leaves nothing half-written"
  umount "$WORK/full"
else
  echo "skipped: may not mount a small tmpfs"
fi
