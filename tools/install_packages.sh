#!/usr/bin/env bash
# Installs the Debian 12 packages that hilomoe needs; a no-op when all are there.
#   tools/install_packages.sh [build] [run] [test] [fuzz] [peers] [faults]     (default: build)
# Needs root, or sudo without a question.
set -euo pipefail

build=(
  build-essential cmake ninja-build pkg-config
  libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev  # serving, schemas
  libssl-dev                            # certificates
  libdnnl-dev ocl-icd-opencl-dev        # dense products; its CMake config asks for OpenCL
  libeigen3-dev                         # matrices in the trainer
  libabsl-dev                           # Status, flags, strings
  prometheus-cpp-dev                    # metrics
  zlib1g-dev libzstd-dev                # compressed logs
  libxxhash-dev                         # vocabulary hashes, checksums
  nlohmann-json3-dev                    # safetensors headers, metrics.json
  libspdlog-dev                         # server log
  libgtest-dev libgmock-dev             # tests
  libbenchmark-dev                      # hilomoe-bench: repetitions, interleaving, timing of threads
)
run=(ca-certificates curl)
test=(
  clang-format gzip openssl zstd git
  python3-grpcio python3-protobuf grpc-proto  # a client that is not ours; node_client_test uses node and npm if there
)
fuzz=(clang libclang-rt-dev libomp-dev)  # libFuzzer; CMake asks for an OpenMP of the compiler
peers=(                                 # tools/pytorch, tools/bench/peers (which also needs node and npm)
  python3-torch python3-numpy libopenblas0-pthread
  python3-protobuf protobuf-compiler    # reads the configs
  python3-onnx                          # writes the graphs
  zstd
)
faults=(util-linux mount libfaketime)     # tools/bench/serving/faults.py

packages=()
for group in "${@:-build}"; do
  case "$group" in
    build) packages+=("${build[@]}") ;;
    run) packages+=("${run[@]}") ;;
    test) packages+=("${test[@]}") ;;
    fuzz) packages+=("${fuzz[@]}") ;;
    peers) packages+=("${peers[@]}") ;;
    faults) packages+=("${faults[@]}") ;;
    *) echo "install_packages.sh: unknown group '$group' (build, run, test, fuzz, peers, faults)" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "install_packages.sh: not root and no sudo; install by hand: ${missing[*]}" >&2
    exit 1
  fi
  sudo=(sudo)
fi
echo "Installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get -qq update
"${sudo[@]}" apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
