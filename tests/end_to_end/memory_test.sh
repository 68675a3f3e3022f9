#!/usr/bin/env bash
# What training says it will need is what it then takes at its peak: never more than 5 % above, never below 80 % of it.
source "$(dirname "$0")/common.sh"

"$BIN/hilomoe-train" generate --directory="$WORK/log" --rows=1250000 --users=200000 --items=50000 --compression=none \
  2>/dev/null
demo="$SOURCE/tools/train/experiments/demo.textproto"
sed -e 's/csv.gz/csv/; s/evaluations_per_epoch: [0-9]*/evaluations_per_epoch: 1/; s/  epochs: 2/  epochs: 1/' "$demo" \
  >"$WORK/demo.textproto"
# One window, so that all rows stay in memory; many windows; wide activations; a model larger than its rows; and all
# that a network may have beside blocks.
cp "$WORK/demo.textproto" "$WORK/one_window.textproto"
sed -e 's/group_by:/shuffle_buffer_mib: 32 group_by:/' "$WORK/demo.textproto" >"$WORK/windows.textproto"
sed -e 's/group_by:/shuffle_buffer_mib: 32 group_by:/; s/width: 64 /width: 256 /; s/batch_size: 2048/batch_size: 32768/' \
  "$WORK/demo.textproto" >"$WORK/wide.textproto"
sed -e 's/group_by:/shuffle_buffer_mib: 32 group_by:/; s/embedding_width: 12/embedding_width: 100/' \
  "$WORK/demo.textproto" >"$WORK/large.textproto"
sed -e 's/group_by:/shuffle_buffer_mib: 32 group_by:/; s/batch_size: 2048/batch_size: 16384/' -e \
  's/^  network {/  network { linear: true cross { } cross { } attention { query: "item_id" history: "hist_items" }/' \
  "$WORK/demo.textproto" >"$WORK/towers.textproto"

# The first run fills the cache; what building it takes is not predicted.
for name in demo one_window windows wide large towers; do
  "$BIN/hilomoe-train" train --config="$WORK/$name.textproto" --data_dir="$WORK/log" --cache_dir="$WORK/cache" \
    --output="$WORK/$name" --threads=2 --save_every_s=5 2>"$WORK/$name.log" || fail "$(tail -n 3 "$WORK/$name.log")"
  predicted=$(sed -n 's/^memory: about \([0-9]*\) MiB.*/\1/p' "$WORK/$name.log")
  peak=$(sed -n 's/.*, \([0-9]*\) MiB at the peak;.*/\1/p' "$WORK/$name.log")
  [ "$name" != demo ] || continue
  grep '^memory' "$WORK/$name.log"
  awk -v peak="$peak" -v predicted="$predicted" \
    'BEGIN { exit peak != "" && peak <= 1.05 * predicted && peak >= 0.8 * predicted ? 0 : 1 }' ||
    fail "$name: predicted $predicted MiB, took $peak MiB"
  pass "$name: predicted $predicted MiB, took $peak MiB"
done
