#!/usr/bin/env bash
# prometheus_test.sh BIN MODEL WORK: a real Prometheus with the configuration of deploy/prometheus scrapes a real
# server under traffic, and every query of the rules and of the Grafana dashboard must be answered with data.
#   BIN: directory of the programs; MODEL: what make_model.sh has made; WORK: directory for files of this run
set -euo pipefail
source "$(dirname "$0")/common.sh"
bin=$1 model=$2 work=$3
need prometheus promtool curl python3
config=$repository/deploy/prometheus

rm -rf "$work"
mkdir -p "$work"

echo "== promtool"
promtool check config "$config/prometheus.yml"
# Debian's Prometheus is built without Kubernetes discovery: without it, the rest of the file is checked as it stands.
if ! promtool check config "$config/prometheus_kubernetes.yml" >"$work/promtool.log" 2>&1; then
  grep -q 'kubernetes_sd_configs not found' "$work/promtool.log" || fail "$(cat "$work/promtool.log")"
  python3 - "$config/prometheus_kubernetes.yml" "$work/without_discovery.yml" <<'PYTHON'
import re, sys
text = open(sys.argv[1]).read()
discovery = r"    kubernetes_sd_configs:\n(?:      .*\n)+"
text, n = re.subn(discovery, "    static_configs: [{targets: [localhost]}]\n", text)
assert n == 1, "kubernetes_sd_configs: expected one block"
open(sys.argv[2], "w").write(text)
PYTHON
  cp "$config"/recording_rules.yml "$config"/alerts.yml "$work"
  promtool check config "$work/without_discovery.yml"
  echo "(prometheus_kubernetes.yml: checked without its discovery, which this Prometheus does not have)"
fi
promtool test rules "$config/alerts_test.yml"

echo "== a server under traffic"
"$bin/hilomoe-server" --model_repository="$model/models" --listen_address=127.0.0.1:0 --metrics_address=127.0.0.1:0 \
  --drain_ms=0 --port_file="$work/ports.json" --routing_sample=1 --capture_path="$work/requests.capture" \
  --capture_sample=1 2>"$work/server.log" &
server=$!
started+=("$server")
wait_for 60 "server's start; see $work/server.log" test -s "$work/ports.json"
listen_port=$(port "$work/ports.json" listen_port)
metrics_port=$(port "$work/ports.json" metrics_port)
wait_for 10 "metrics" metric "$metrics_port" hilomoe_ready
curl -sS "http://127.0.0.1:$metrics_port/metrics" | promtool check metrics || fail "promtool check metrics"

echo "== Prometheus"
# The repository's configuration, but for the server's port and the pace.
read -r prometheus_port < <(free_ports 1)
cp "$config"/recording_rules.yml "$config"/alerts.yml "$work"
sed -e "s/localhost:8501/127.0.0.1:$metrics_port/" -e 's/_interval: 15s/_interval: 1s/' "$config/prometheus.yml" \
  >"$work/prometheus.yml"
grep -q "127.0.0.1:$metrics_port" "$work/prometheus.yml" || fail "prometheus.yml has no target localhost:8501 to adapt"
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" \
  --web.listen-address="127.0.0.1:$prometheus_port" --log.level=warn >"$work/prometheus.log" 2>&1 &
started+=($!)
prometheus=http://127.0.0.1:$prometheus_port
wait_for 60 "Prometheus' start; see $work/prometheus.log" curl -fsS "$prometheus/-/ready"

# Some seconds of traffic, so that rates have their two samples and the rules are evaluated after them.
score() {
  "$bin/hilomoe-client" score --server="127.0.0.1:$listen_port" --output="$work/scores.csv" "$model/log.csv" \
    2>"$work/client.log" ||
    fail "hilomoe-client: $(tail -1 "$work/client.log")"
}
rows=$(($(wc -l <"$model/log.csv") - 1))
scored=0
traffic_end=$((SECONDS + 10))
while [ "$SECONDS" -lt "$traffic_end" ]; do
  score
  scored=$((scored + rows))
  sleep 0.5
done
compare_scores "$model/log_scores.csv" "$work/scores.csv" "$rows"
counted=$(metric "$metrics_port" 'hilomoe_candidates_total{model="demo",version="1"}')
[ "$counted" = "$scored" ] || fail "hilomoe_candidates_total is $counted after $scored candidates"

python3 "$(dirname "$0")/check_queries.py" "$prometheus" "http://127.0.0.1:$metrics_port/metrics" "$repository/deploy"

echo "== the server stops"
kill "$server"
wait "$server" || fail "hilomoe-server ended with $? on SIGTERM"
pending() {
  local query='query=ALERTS{alertname="HilomoeServerDown", alertstate="pending"}'
  [[ "$(curl -fsS --get --data-urlencode "$query" "$prometheus/api/v1/query")" == *HilomoeServerDown* ]]
}
wait_for 20 "HilomoeServerDown is pending" pending
echo "HilomoeServerDown is pending"
