#!/usr/bin/env bash
# kustomize_test.sh BIN MODEL WORK: renders deploy/kubernetes/base, checks what must hold of it, and runs the server
# with the rendered config, asked by the rendered probes.
#   BIN: directory of the programs; MODEL: what make_model.sh has made; WORK: directory for files of this run
set -euo pipefail
source "$(dirname "$0")/common.sh"
bin=$1 model=$2 work=$3
need curl python3
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
"${kustomize[@]}" "$repository/deploy/kubernetes/base" >"$work/rendered.yaml"
python3 "$(dirname "$0")/check_manifests.py" "$work/rendered.yaml" "$repository/deploy/docker/Dockerfile" "$work"

echo "== the server with the rendered config"
# check_manifests.py has written server.textproto and probes, one "KIND PORT SERVICE" per line. Addresses and the
# repository are the machine's here; the drain is shortened.
"$bin/hilomoe-server" --config="$work/server.textproto" --model_repository="$model/models" \
  --listen_address=127.0.0.1:0 --metrics_address=127.0.0.1:0 --drain_ms=0 --port_file="$work/ports.json" \
  2>"$work/server.log" &
server=$!
started+=("$server")
started_or_ended() { [ -s "$work/ports.json" ] || ! kill -0 "$server"; }
wait_for 60 "server's start" started_or_ended
[ -s "$work/ports.json" ] || fail "no start with the rendered config: $(tail -1 "$work/server.log")"
listen_port=$(port "$work/ports.json" listen_port)
while read -r kind port service; do
  health "127.0.0.1:$listen_port" "$service" || fail "$kind (port $port, service '$service') is not answered SERVING"
  echo "ok  $kind: service '$service' is SERVING"
done <"$work/probes"
if health "127.0.0.1:$listen_port" no.such.Service; then fail "an unknown service is SERVING: nothing is proved"; fi
kill "$server"
wait "$server" || fail "hilomoe-server ended with $? on SIGTERM"
