#!/usr/bin/env bash
# Training on two threads, interrupted at any moment and resumed, ends in the very model of an undisturbed run.
source "$(dirname "$0")/common.sh"

"$BIN/hilomoe-train" generate --directory="$WORK/log" --rows=60000 --users=100 --items=60 2>/dev/null
# Wide enough that nearly all of the time is spent within products.
sed -e 's/width: 64 /width: 512 /' "$SOURCE/tools/train/experiments/demo.textproto" >"$WORK/wide.textproto"
grep -q 'width: 512' "$WORK/wide.textproto" || fail "the demo's blocks are no longer what this test widens"
train=("$BIN/hilomoe-train" train --config="$WORK/wide.textproto" --data_dir="$WORK/log" --threads=2)
"${train[@]}" --output="$WORK/whole" 2>/dev/null

RANDOM=1
interrupted=0
resume=()
while true; do
  : >"$WORK/log.txt"  # not the last run's
  "${train[@]}" --output="$WORK/parts" "${resume[@]}" 2>>"$WORK/log.txt" &
  pid=$!
  # A resumed run says nothing before its first step but this line.
  until grep -q 'parameters; FLOPs' "$WORK/log.txt" || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
  sleep "0.$((100 + RANDOM % 300))"
  [ $((interrupted % 2)) -eq 0 ] && signal=INT || signal=TERM
  [ "$interrupted" -eq 10 ] || kill -$signal $pid 2>/dev/null || true
  code=0
  wait $pid || code=$?
  [ "$code" -ne 0 ] || break
  [ "$code" -eq 1 ] || { cat "$WORK/log.txt" >&2; fail "exit code $code after SIG$signal"; }
  grep -q -- '--resume continues' "$WORK/log.txt" || { cat "$WORK/log.txt" >&2; fail "no word of --resume"; }
  interrupted=$((interrupted + 1))
  resume=(--resume)
done
[ "$interrupted" -ge 3 ] || fail "interrupted $interrupted times only"
pass "interrupted $interrupted times"
cmp "$WORK/whole/checkpoint/weights.safetensors" "$WORK/parts/checkpoint/weights.safetensors" || fail "another model"
pass "the resumed run equals the undisturbed one"
