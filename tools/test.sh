#!/usr/bin/env bash
# Installs what the tests need, builds everything and runs the tests.
#   tools/test.sh [--preset release|dev|asan|tsan|fuzz] [ctest arguments]
# Without ctest arguments all tests but those labelled slow are run; -L slow runs these. The preset `fuzz` builds the
# fuzz targets alone, with clang, and fuzzes with each for ten seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=release
if [ "${1:-}" = --preset ]; then preset="${2:?--preset needs a name}"; shift 2; fi
if [ $# -eq 0 ]; then set -- -LE slow; fi

groups=(build run test)
if [ "$preset" = fuzz ]; then groups+=(fuzz); fi
tools/install_packages.sh "${groups[@]}"
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset"
ctest --preset "$preset" -j "$(nproc)" "$@"
