"""check_queries.py PROMETHEUS_URL METRICS_URL DEPLOY: asks a Prometheus that scrapes a server under traffic.

Every query of the dashboard and every recording rule must return data, no alert may be on, and the metrics that alerts
name must exist: an alert over a metric that is not there is silent for ever.
"""
import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

prometheus, metrics_url, deploy = sys.argv[1:]
WAIT_S = 30  # for rates to have their samples, and for rules over recorded series
VARIABLES = {"$job": "hilomoe", "$instance": ".*", "$model": ".*", "$__rate_interval": "1m"}
# What only shows where the kernel counts a CPU quota's periods, and with TLS.
OPTIONAL_METRICS = re.compile(r"\bhilomoe_(?:cpu_[a-z_]+|tls_certificate_(?:expiry_timestamp_seconds|refused)\b)")
problems = []


def get(path, **parameters):
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        sys.exit(f"FAILED: {parameters or path}: {json.load(error).get('error')}")


def numbers(query):
    """The finite values of the query's series now."""
    values = [float(series["value"][1]) for series in get("query", query=query)["result"]]
    return [value for value in values if math.isfinite(value)]


def must_have_data(what, query):
    end = time.monotonic() + WAIT_S
    while not (values := numbers(query)):
        if time.monotonic() > end:
            problems.append(f"{what}: no data: {query}")
            return
        time.sleep(0.5)
    print(f"ok  {what}: {len(values)} series")


def expand(query):
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    if "$" in query:
        problems.append(f"unknown variable in {query}")
    return query


def check_dashboard():
    with open(f"{deploy}/grafana/hilomoe.json") as file:
        dashboard = json.load(file)
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(ids) != len(set(ids)):
        problems.append("hilomoe.json: a panel id twice")
    queries = 0
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            continue
        if not panel["targets"]:
            problems.append(f"{panel['title']}: no query")
        for target in panel["targets"]:
            optional = OPTIONAL_METRICS.search(target["expr"])
            if optional and not numbers(optional[0]):
                print(f"--  panel {panel['title']}: no {optional[0]} here")
                numbers(expand(target["expr"]))
                continue
            must_have_data(f"panel {panel['title']}", expand(target["expr"]))
            queries += 1
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "datasource":
            continue
        label_values = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        selector, label = label_values.groups()
        if not get(f"label/{label}/values", **{"match[]": expand(selector)}):
            problems.append(f"variable {variable['name']}: no values")
    for annotation in dashboard["annotations"]["list"]:
        numbers(annotation["expr"])
    if queries < 20:
        problems.append(f"only {queries} queries found in the dashboard")


def check_rules():
    with urllib.request.urlopen(metrics_url, timeout=10) as answer:
        exposed = set(re.findall(r"^([a-z_]+)", answer.read().decode(), re.MULTILINE))
    # Until every rule has been evaluated over samples.
    time.sleep(2)
    rules = [rule for group in get("rules")["groups"] for rule in group["rules"]]
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
    for rule in rules:
        if rule["health"] != "ok":
            problems.append(f"rule {rule['name']}: {rule['health']}: {rule.get('lastError')}")
        if rule["type"] == "recording":
            must_have_data(f"recording rule {rule['name']}", rule["name"])
        elif rule["state"] != "inactive":
            problems.append(f"alert {rule['name']} is {rule['state']} on a healthy server")
        for name in re.findall(r"[a-z_]+:[a-z0-9_:]+|\b(?:hilomoe|process)_[a-z_]+", rule["query"]):
            if name not in exposed and name not in recorded and not OPTIONAL_METRICS.match(name):
                problems.append(f"rule {rule['name']}: nobody exposes {name}")
    kinds = [rule["type"] for rule in rules]
    print(f"{kinds.count('recording')} recording rules, {kinds.count('alerting')} alerts, {len(exposed)} metrics")


def check_values():
    """Some answers are known."""
    for query, least, most in [
        ('up{job="hilomoe"}', 1, 1),
        ("job:hilomoe_requests_failed:ratio_5m", 0, 0),
        ("job:hilomoe_requests_shed:ratio_5m", 0, 0),
        ("sum(rate(hilomoe_candidates_total[5m]))", 1, 1e9),
        ('max(job_model:hilomoe_request_duration_seconds:p99_5m)', 1e-6, 1),
        ('time() - max(hilomoe_model_created_timestamp_seconds)', 0, 86400),
        # The rows scored are like those that training ended with.
        ("max(job_model_version_block_layer:hilomoe_routing_drift:tv_30m)", 0, 0.2),
        ("job_model_version_block_layer:hilomoe_routing_entropy:mean_30m", 0.01, 1.0001),
        ("job_model:hilomoe_score:mean_30m", 0.01, 0.9),
        ('hilomoe_model_state{state="AVAILABLE"}', 1, 1),
        ('hilomoe_model_state{state!="AVAILABLE"}', 0, 0),
        # Every hour of the day is in the training rows.
        ('job_model_feature:hilomoe_feature_out_of_vocabulary:ratio_5m{feature="hour"}', 0, 0.01),
    ]:
        values = numbers(query)
        if not values or not all(least <= value <= most for value in values):
            problems.append(f"{query} is {values}, expected from {least} to {most}")


check_dashboard()
check_rules()
check_values()
if problems:
    sys.exit("FAILED:\n  " + "\n  ".join(problems))
