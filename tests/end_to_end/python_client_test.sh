#!/usr/bin/env bash
# A client of other people's making, Python's grpcio, gets the golden rows' scores over both protocols, finds both
# services by reflection, and follows the server's health to its end.
source "$(dirname "$0")/common.sh"
source "$SOURCE/tests/end_to_end/clients/common.sh"

generate_python
start_golden_server --drain_ms=2000
"$PYTHON" "$SOURCE/tests/end_to_end/clients/python_client.py" "$ADDRESS" "$MODEL" "$SERVER_PID" ||
  fail "the Python client is not content"
code=0
wait "$SERVER_PID" || code=$?
SERVER_PID=
[ "$code" -eq 0 ] || { cat "$WORK/server.log" >&2; fail "the server's exit code is $code"; }
pass "grpcio: Score, ScoreStream, GetModel, ModelInfer, metadata, reflection, health until the server's end"
