#!/usr/bin/env bash
# Two more clients of other people's making: @grpc/grpc-js, and buf, which learns what to send by reflection or from the
# schema. They are installed beside the build, once.
source "$(dirname "$0")/common.sh"
source "$SOURCE/tests/end_to_end/clients/common.sh"

for program in node npm; do
  command -v $program >/dev/null || { echo "skipped: no $program"; exit 77; }
done
node_modules="$(dirname "$BIN")/node_clients/node_modules"
packages=(@grpc/grpc-js@1.14.7 @grpc/proto-loader@0.8.1 @bufbuild/buf@1.75.0)
if [ "$(cat "$node_modules/.hilomoe" 2>/dev/null)" != "${packages[*]}" ]; then
  npm install --prefix "$(dirname "$node_modules")" --ignore-scripts --no-audit --no-fund --loglevel=error \
    --prefer-offline --fetch-retries=1 "${packages[@]}" >&2 || { echo "skipped: cannot install ${packages[*]}"; exit 77; }
  echo "${packages[*]}" >"$node_modules/.hilomoe"
fi

generate_python
mkdir "$WORK/requests"
"$PYTHON" "$SOURCE/tests/end_to_end/clients/golden.py" "$MODEL" "$WORK/requests"
start_golden_server
NODE_PATH="$node_modules" timeout 120 node "$SOURCE/tests/end_to_end/clients/node_client.js" "$ADDRESS" \
  "$SOURCE/proto" "$WORK/requests" || fail "the node client is not content"
pass "grpc-js: Score, ScoreStream, GetModel, ModelInfer, metadata, health"

export BUF_CACHE_DIR="$WORK/buf"
# buf METHOD REQUEST [flags]: the answer on one line.
buf() {
  local method="$1" request="$2"
  shift 2
  timeout 60 "$node_modules/.bin/buf" curl --protocol grpc --http2-prior-knowledge -d "$request" "$@" \
    "http://$ADDRESS/$method" | tr -d '\n'
}
# The scores in an answer on stdin.
scores() {
  "$PYTHON" -c 'import json, sys
answer = json.load(sys.stdin)
print(*(answer["scores"] if "scores" in answer else answer["outputs"][0]["contents"]["fp32Contents"]))'
}
reflected=(--reflect --reflect-protocol grpc-v1alpha)
by_schema=(--reflect=false --schema "$SOURCE/proto")
expected=$(buf hilomoe.v1.ScoringService/Score "@$WORK/requests/native0.json" "${reflected[@]}" | scores)
[ "$(wc -w <<<"$expected")" -eq 6 ] || fail "buf got '$expected' for six candidates"
for flags in reflected by_schema; do
  declare -n how=$flags
  for form in native typed; do
    method=$([ $form = native ] && echo hilomoe.v1.ScoringService/Score || echo inference.GRPCInferenceService/ModelInfer)
    got=$(buf "$method" "@$WORK/requests/${form}0.json" "${how[@]}" | scores)
    [ "$got" = "$expected" ] || fail "buf, $flags, $form: '$got' instead of '$expected'"
  done
  buf inference.GRPCInferenceService/ModelInfer "@$WORK/requests/raw0.json" "${how[@]}" | grep -q rawOutputContents ||
    fail "buf, $flags: no raw answer"
  buf inference.GRPCInferenceService/ServerReady '{}' "${how[@]}" | grep -q '"ready": *true' || fail "buf, $flags: not ready"
done
buf grpc.health.v1.Health/Check '{"service": "hilomoe.v1.ScoringService"}' --reflect=false \
  --schema /usr/share/grpc-proto/grpc/health/v1/health.proto | grep -q '"status": *"SERVING"' || fail "buf: health"
pass "buf curl: Score, ModelInfer, ServerReady by reflection and by schema; health by schema"
stop_server
