#!/usr/bin/env bash
# A comparison killed and stopped at any moment, and started again each time, ends in the very runs of an undisturbed one.
source "$(dirname "$0")/common.sh"

"$BIN/hilomoe-train" generate --directory="$WORK/log" --rows=60000 --users=100 --items=60 2>/dev/null
cat >"$WORK/comparison.textproto" <<END
arms {
  name: "experts" config: "$SOURCE/tools/train/experiments/demo.textproto"
  trials { name: "small" overrides { batch_size: 512 } }
  trials { name: "large" overrides { batch_size: 4096 } }
}
arms {
  name: "dense" config: "$SOURCE/tools/train/experiments/demo.textproto" control: true
  overrides { model { network { blocks { width: 64 } } } }
  trials { name: "small" overrides { batch_size: 512 } }
  trials { name: "large" overrides { batch_size: 4096 } }
}
seed_range { first: 1 last: 3 }
selection_seeds: 2
judged: "experts"
END
compare=("$BIN/hilomoe-train" compare "$WORK/comparison.textproto" --data_dir="$WORK/log" --jobs=2 --save_every_s=0.2)
"${compare[@]}" --output="$WORK/whole" >"$WORK/whole.md" 2>/dev/null
grep -q 'experts (judged)' "$WORK/whole.md" || fail "no table"

# trainings: how many processes work in the disturbed grid (and not this search itself).
trainings() { grep -lsz -- "--output=$WORK/parts[/]" /proc/[0-9]*/cmdline | wc -l; }

RANDOM=1
disturbed=0
killed=0
while true; do
  "${compare[@]}" --output="$WORK/parts" >"$WORK/parts.md" 2>"$WORK/log.txt" &
  pid=$!
  sleep "0.$((200 + RANDOM % 700))"
  case $((disturbed % 3)) in
    0) signal=KILL ;;
    1) signal=INT ;;
    2) signal=TERM ;;
  esac
  # From some time on left alone, so that a slow machine comes to an end.
  [ "$disturbed" -ge 15 ] || kill -$signal $pid 2>/dev/null || true
  code=0
  wait $pid 2>/dev/null || code=$?
  [ "$code" -ne 0 ] || break
  disturbed=$((disturbed + 1))
  if [ $signal = KILL ]; then
    killed=$((killed + 1))
    continue # at once: the next start waits for what is left behind
  fi
  # Still waiting for what was left behind, there is nothing to stop: the signal ends it at once.
  [ "$code" -ne $((128 + $(kill -l $signal))) ] || continue
  [ "$code" -eq 1 ] || { cat "$WORK/log.txt" >&2; fail "exit code $code after SIG$signal"; }
  grep -q 'the same command goes on' "$WORK/log.txt" || { cat "$WORK/log.txt" >&2; fail "no word of going on"; }
  [ "$(trainings)" -eq 0 ] || fail "$(trainings) trainings outlived the comparison"
done
[ "$killed" -ge 1 ] || fail "disturbed $disturbed times only, never killed"
grep -rq '"resumed": true' "$WORK/parts" --include=run.json || fail "no run was resumed"
pass "disturbed $disturbed times, killed $killed times of it"

# The runs' own files; what a killed process was writing stays beside, under a name that ends in .tmp.PID.
files() { (cd "$1" && find . -name '*.safetensors' ! -path './cache/*' ! -path '*.tmp.*' | sort); }
files "$WORK/whole" >"$WORK/whole.files"
files "$WORK/parts" >"$WORK/parts.files"
diff "$WORK/whole.files" "$WORK/parts.files" || fail "other runs"
[ "$(grep -c test.safetensors "$WORK/whole.files")" -eq 6 ] || fail "not the chosen trials alone were scored"
while read -r file; do
  cmp "$WORK/whole/$file" "$WORK/parts/$file" || fail "another $file"
done <"$WORK/whole.files"
cmp "$WORK/whole/choice.json" "$WORK/parts/choice.json" || fail "another choice"
# Training seconds may differ, and are the arms' alone.
sed -n '/minus each control/,$p' "$WORK/whole.md" >"$WORK/whole.differences"
sed -n '/minus each control/,$p' "$WORK/parts.md" | cmp - "$WORK/whole.differences" || fail "other differences"
pass "$(wc -l <"$WORK/whole.files") files, choice and differences equal those of the undisturbed comparison"
