#!/usr/bin/env bash
# Training on two threads, interrupted or killed at any moment and resumed, ends in the very model of an undisturbed run,
# and in the same metrics.jsonl but for times.
source "$(dirname "$0")/common.sh"

"$BIN/hilomoe-train" generate --directory="$WORK/log" --rows=60000 --users=100 --items=60 2>/dev/null
# Wide enough that nearly all of the time is spent within products.
sed -e 's/width: 64 /width: 512 /' "$SOURCE/tools/train/experiments/demo.textproto" >"$WORK/wide.textproto"
grep -q 'width: 512' "$WORK/wide.textproto" || fail "the demo's blocks are no longer what this test widens"
train=("$BIN/hilomoe-train" train --config="$WORK/wide.textproto" --data_dir="$WORK/log" --threads=2
  --save_every_s=0.1)
"${train[@]}" --output="$WORK/whole" 2>/dev/null

RANDOM=1
interrupted=0
saved=0
resume=()
while true; do
  : >"$WORK/log.txt"  # not the last run's
  "${train[@]}" --output="$WORK/parts" "${resume[@]}" 2>>"$WORK/log.txt" &
  pid=$!
  # A resumed run says nothing before its first step but this line.
  until grep -q 'parameters; FLOPs' "$WORK/log.txt" || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
  sleep "0.$((100 + RANDOM % 300))"
  signals=(INT TERM KILL)
  signal=${signals[interrupted % 3]}
  [ "$interrupted" -eq 10 ] || kill -$signal $pid 2>/dev/null || true
  code=0
  { wait $pid; } 2>/dev/null || code=$?
  [ "$code" -ne 0 ] || break
  if [ $signal = KILL ]; then
    [ "$code" -eq 137 ] || { cat "$WORK/log.txt" >&2; fail "exit code $code after SIGKILL"; }
  elif [ "$code" -le 128 ]; then
    saved=$((saved + 1))
    [ "$code" -eq 1 ] || { cat "$WORK/log.txt" >&2; fail "exit code $code after SIG$signal"; }
    grep -q -- '--resume continues' "$WORK/log.txt" || { cat "$WORK/log.txt" >&2; fail "no word of --resume"; }
  fi  # else in the final evaluations, which any signal ends at once
  interrupted=$((interrupted + 1))
  resume=(--resume)
done
[ "$interrupted" -ge 3 ] || fail "interrupted $interrupted times only"
[ "$saved" -ge 2 ] || fail "saved at $saved of $interrupted interruptions only"
pass "interrupted $interrupted times"
cmp "$WORK/whole/checkpoint/weights.safetensors" "$WORK/parts/checkpoint/weights.safetensors" || fail "another model"
pass "the resumed run equals the undisturbed one"

timeless() {
  grep -v '"event":"resume"' "$1/metrics.jsonl" | sed -E 's/"(created|seconds|rows_per_s)":("[^"]*"|[-+.0-9e]+|null),?//g'
}
timeless "$WORK/whole" >"$WORK/whole.jsonl"
timeless "$WORK/parts" >"$WORK/parts.jsonl"
diff "$WORK/whole.jsonl" "$WORK/parts.jsonl" | cut -c1-300 >&2 || true
cmp "$WORK/whole.jsonl" "$WORK/parts.jsonl" || fail "another record"
grep -q '"event":"end"' "$WORK/parts.jsonl" || fail "the record has no end"
pass "so does its record, $(wc -l <"$WORK/parts.jsonl") lines; resumed $(grep -c '"event":"resume"' "$WORK/parts/metrics.jsonl") times"
"$BIN/hilomoe-train" report --run="$WORK/parts" --page="$WORK/page.html"
cmp "$WORK/page.html" "$WORK/parts/report.html" || fail "another report"
pass "the report is drawn from the record alone"
