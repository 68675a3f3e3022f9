#!/usr/bin/env bash
# Fuzzes one target, from its committed corpus and what earlier runs found:
#   tests/fuzz/run.sh TARGET SECONDS [libFuzzer flags]
# TARGET is a folder of tests/fuzz/corpus. Needs the preset `fuzz`, built. What it finds stays under
# build/fuzz/findings/TARGET (HILOMOE_FUZZ_FINDINGS); <program> <file> repeats it. New inputs that reached more
# are in corpus/ there. Into the repository go those that
#   build/fuzz/fuzz/TARGET_fuzz -merge=1 tests/fuzz/corpus/TARGET build/fuzz/findings/TARGET/corpus
# keeps, if they are few and small, and every finding, once it is fixed.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
target=${1:?which target?} seconds=${2:?how many seconds?}
shift 2
build=${HILOMOE_FUZZ_BUILD:-$root/build/fuzz}
program=$build/fuzz/${target}_fuzz
[ -x "$program" ] || { echo "no $program: cmake --preset fuzz && cmake --build --preset fuzz" >&2; exit 2; }
findings=${HILOMOE_FUZZ_FINDINGS:-$build/findings}/$target
mkdir -p "$findings/corpus"

# Twenty seconds for one input, 2 GiB for all, 1 GiB for one allocation. Leaks are looked for where corpora are replayed, in
# the preset `asan`: here each look would stop the program for a second.
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
flags=()
# Weighing its many features by how rare they are takes longer than to try them.
if [ "$target" = model_file ]; then flags+=(-entropic=0); fi
exec "$program" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -malloc_limit_mb=1024 -max_len=32768 \
  -artifact_prefix="$findings/" -detect_leaks=0 -print_final_stats=1 "${flags[@]}" "$@" "$findings/corpus" "$root/tests/fuzz/corpus/$target"
