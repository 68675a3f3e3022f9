# Sourced after ../common.sh by the tests of other people's clients: PYTHON, MODEL (a file with golden rows), a server
# that serves it.

PYTHON=${PYTHON:-/usr/bin/python3}
MODEL="$SOURCE/tests/compatibility/model_v1.hilomoe"

# Python code of all schemas, and of gRPC's own services, into $WORK/python, from where it is imported.
generate_python() {
  "$PYTHON" -c 'import google.protobuf, grpc' 2>/dev/null && [ -d /usr/share/grpc-proto ] ||
    { echo "skipped: tools/install_packages.sh test"; exit 77; }
  mkdir "$WORK/python"
  local plugin
  plugin=$(command -v grpc_python_plugin)
  (cd "$SOURCE/proto" && protoc -I . --python_out="$WORK/python" --plugin=protoc-gen-grpc="$plugin" \
    --grpc_out="$WORK/python" $(find . -name '*.proto'))
  # Without their first folder, which is the name of grpcio's package.
  (cd /usr/share/grpc-proto/grpc && protoc -I . --python_out="$WORK/python" --plugin=protoc-gen-grpc="$plugin" \
    --grpc_out="$WORK/python" health/v1/health.proto reflection/v1alpha/reflection.proto)
  export PYTHONPATH="$WORK/python:$SOURCE/tests/end_to_end/clients" PYTHONDONTWRITEBYTECODE=1
}

# start_golden_server [flags]
start_golden_server() {
  mkdir -p "$WORK/golden/ctr/1"
  cp "$MODEL" "$WORK/golden/ctr/1/model.hilomoe"
  start_server "$WORK/golden" "$@"
}
