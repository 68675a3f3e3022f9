#!/usr/bin/env bash
# Compares two score files row by row: the trainer's (hilomoe-train evaluate --scores) and the server's (hilomoe-client
# score). Prints rows, rows left out and the largest difference; fails when it exceeds the bound.
#   tools/compare_scores.sh EVALUATED SERVED [BOUND=1e-5] [TIE_GAP=1e-4]
# A row is left out when EVALUATED has a tie_gap column and the row's gap is not above TIE_GAP: its top-k choice is
# within float rounding of another one.
set -euo pipefail
if [ $# -lt 2 ]; then sed -n 2,7p "$0" >&2; exit 2; fi

paste -d, "$1" "$2" | awk -F, -v bound="${3:-1e-5}" -v tie="${4:-1e-4}" '
  NR == 1 {
    gap = 0
    for (i = 1; i <= NF; ++i) if ($i == "tie_gap") gap = i
    next
  }
  {
    if ($1 == "" || $NF == "") { print "row " NR - 1 ": one file is shorter than the other"; bad = 1; exit 1 }
    ++rows
    if (gap && $gap != "inf" && $gap + 0 <= tie + 0) { ++skipped; next }
    d = $1 - $NF
    if (d < 0) d = -d
    if (d > largest) { largest = d; at = NR - 1 }
  }
  END {
    if (bad) exit 1
    printf "%d rows, %d left out as top-k ties, largest difference %.3g (row %d), bound %g\n", rows, skipped, largest, at, bound
    exit rows > skipped && largest <= bound + 0 ? 0 : 1
  }'
