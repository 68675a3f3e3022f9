#!/usr/bin/env bash
# kustomize_test.sh BIN MODEL WORK: renders deploy/kubernetes/base and tls, checks what must hold of them, and runs the
# server with the rendered config, asked by the rendered probes.
#   BIN: directory of the programs; MODEL: what make_model.sh has made; WORK: directory for files of this run
set -euo pipefail
source "$(dirname "$0")/common.sh"
bin=$1 model=$2 work=$3
need curl openssl python3
if command -v kubectl >/dev/null && kubectl kustomize --help >/dev/null 2>&1; then
  kustomize=(kubectl kustomize)
elif command -v kustomize >/dev/null; then
  kustomize=(kustomize build)
else
  skip "neither kubectl nor kustomize is installed (Debian: kubernetes-client)"
fi
python3 -c 'import yaml' 2>/dev/null || skip "python3-yaml is not installed"

rm -rf "$work"
mkdir -p "$work"

# run_rendered DIRECTORY CURL_OPTION...: renders deploy/kubernetes/DIRECTORY and runs the server with its config.
# check_manifests.py has written server.textproto and probes, one "KIND PORT SERVICE" per line. Addresses and the
# repository are the machine's here; the drain is shortened.
run_rendered() {
  local directory=$work/$1 name=$1 scheme=http server listen_port probe_port kind port service
  shift
  if [ $# -gt 0 ]; then scheme=https; fi
  echo "== deploy/kubernetes/$name"
  mkdir -p "$directory"
  "${kustomize[@]}" "$repository/deploy/kubernetes/$name" >"$directory/rendered.yaml"
  python3 "$(dirname "$0")/check_manifests.py" "$directory/rendered.yaml" "$repository/deploy/docker/Dockerfile" \
    "$directory"
  sed -i "s|/etc/hilomoe-tls|$work/secret|" "$directory/server.textproto"
  "$bin/hilomoe-server" --config="$directory/server.textproto" --model_repository="$model/models" \
    --listen_address=127.0.0.1:0 --metrics_address=127.0.0.1:0 --probe_address=127.0.0.1:0 --drain_ms=0 \
    --port_file="$directory/ports.json" 2>"$directory/server.log" &
  server=$!
  started+=("$server")
  started_or_ended() { [ -s "$directory/ports.json" ] || ! kill -0 "$server"; }
  wait_for 60 "server's start" started_or_ended
  [ -s "$directory/ports.json" ] || fail "no start with the rendered config: $(tail -1 "$directory/server.log")"
  listen_port=$(port "$directory/ports.json" listen_port)
  probe_port=$(port "$directory/ports.json" probe_port)
  while read -r kind port service; do
    health "http://127.0.0.1:$probe_port" "$service" ||
      fail "$kind (port $port, service '$service') is not answered SERVING"
    echo "ok  $kind: service '$service' is SERVING"
  done <"$directory/probes"
  if health "http://127.0.0.1:$probe_port" no.such.Service; then
    fail "an unknown service is SERVING: nothing is proved"
  fi
  health "$scheme://127.0.0.1:$listen_port" "" "$@" || fail "the public port does not speak $scheme"
  if [ "$scheme" = https ]; then
    "$bin/hilomoe-client" score --server="127.0.0.1:$listen_port" --tls_ca_file="$work/secret/tls.crt" \
      --output="$directory/scores.csv" "$model/request.csv" 2>"$directory/client.log" ||
      fail "hilomoe-client: $(tail -1 "$directory/client.log")"
    compare_scores "$model/request_scores.csv" "$directory/scores.csv" $(($(wc -l <"$model/request.csv") - 1))
    if "$bin/hilomoe-client" score --server="127.0.0.1:$listen_port" --output="$directory/plaintext.csv" \
      --connect_timeout_ms=500 "$model/request.csv" 2>"$directory/client.log"; then
      fail "the public port takes plaintext, too"
    fi
  fi
  kill "$server"
  wait "$server" || fail "hilomoe-server ended with $? on SIGTERM"
}

run_rendered base

# The secret as it is mounted.
mkdir -p "$work/secret"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=hilomoe \
  -addext subjectAltName=IP:127.0.0.1 -keyout "$work/secret/tls.key" -out "$work/secret/tls.crt" 2>"$work/openssl.log"
run_rendered tls --cacert "$work/secret/tls.crt"
