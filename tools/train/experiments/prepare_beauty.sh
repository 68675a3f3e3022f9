#!/usr/bin/env bash
# Amazon Beauty has no validation log: every user's last training step becomes it.
# prepare_beauty.sh DATA OUT: reads DATA/amazon_beauty, writes OUT/amazon_beauty/{train,valid,test}.csv.gz
set -euo pipefail
from="${1:?usage: $0 DATA OUT}/amazon_beauty"
to="${2:?usage: $0 DATA OUT}/amazon_beauty"
mkdir -p "$to"
# request_id, the second column, is USER-STEP.
zcat "$from/train.csv.gz" | awk -F, 'NR > 1 { split($2, at, "-"); if (at[2] + 0 > last[at[1]] + 0) last[at[1]] = at[2] }
  END { for (user in last) print user "-" last[user] }' >"$to/last_steps"
for part in train valid; do
  zcat "$from/train.csv.gz" | awk -F, -v valid="$([ $part = valid ] && echo 1 || echo 0)" '
    NR == FNR { last[$1] = 1; next } FNR == 1 || ($2 in last) == valid' "$to/last_steps" - | gzip -1 >"$to/$part.csv.gz.tmp"
  mv "$to/$part.csv.gz.tmp" "$to/$part.csv.gz"
done
cp "$from/test.csv.gz" "$to/test.csv.gz"
rm "$to/last_steps"
