"""check_manifests.py RENDERED DOCKERFILE OUT: what must hold of the rendered Kubernetes objects.

Writes OUT/server.textproto, the server's config out of the ConfigMap, and OUT/probes, a line "KIND PORT SERVICE" each.
"""
import re
import sys

import yaml

rendered, dockerfile, out = sys.argv[1:]


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML readers silently take the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, f"a key twice in {keys}", node.start_mark)
        return super().construct_mapping(node, deep)


with open(rendered) as file:
    documents = list(yaml.load_all(file, Loader=StrictLoader))
with open(dockerfile) as file:
    image = file.read()
objects = {(document["kind"], document["metadata"]["name"]): document for document in documents}
checks = 0


def check(condition, what):
    global checks
    checks += 1
    if not condition:
        sys.exit(f"FAILED: {what}")


def named(items, name):
    return next(item for item in items if item["name"] == name)


check(len(objects) == len(documents), "two objects of one kind and name")
check({kind for kind, _ in objects} == {"Deployment", "Service", "ConfigMap", "PodDisruptionBudget"},
      f"unexpected kinds: {sorted(objects)}")

deployment = objects["Deployment", "hilomoe"]
template = deployment["spec"]["template"]
pod = template["spec"]
check(len(pod["containers"]) == 1, "one container")
container = pod["containers"][0]

# The ConfigMap that the pods mount, under its hashed name, holds the file that the server is told to read.
config_map = objects["ConfigMap", named(pod["volumes"], "config")["configMap"]["name"]]
check(re.fullmatch(r"hilomoe-config-\w+", config_map["metadata"]["name"]), "the ConfigMap's name has a hash")
mount = named(container["volumeMounts"], "config")["mountPath"]
config_path = next(arg for arg in container["args"] if arg.startswith("--config=")).removeprefix("--config=")
directory, _, file_name = config_path.rpartition("/")
check(directory == mount and file_name in config_map["data"], f"{config_path} is not in the ConfigMap at {mount}")
config = config_map["data"][file_name]
with open(f"{out}/server.textproto", "w") as file:
    file.write(config)


def setting(name):
    return re.search(rf"^{name}: \"?([^\"\n]+)\"?$", config, re.MULTILINE).group(1)


# Ports: config, container, services, image and annotation agree.
ports = {port["name"]: port["containerPort"] for port in container["ports"]}
exposed = sorted(int(port) for port in re.search(r"^EXPOSE (.+)$", image, re.MULTILINE).group(1).split())
check(sorted(ports.values()) == exposed, f"container ports {ports}, the image exposes {exposed}")
check(setting("listen_address") == f"0.0.0.0:{ports['grpc']}", "listen_address is the container's grpc port")
check(setting("probe_address") == f"0.0.0.0:{ports['probe']}", "probe_address is the container's probe port")
check("admin_address" not in config, "no admin port")
check(setting("metrics_address") == f"0.0.0.0:{ports['metrics']}", "metrics_address is the container's metrics port")
check(template["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"]), "prometheus.io/port")
for name, port in [("hilomoe", "grpc"), ("hilomoe-metrics", "metrics")]:
    service = objects["Service", name]["spec"]
    check(service["clusterIP"] == "None", f"service {name} is headless")
    check(service["ports"][0]["targetPort"] == port and service["ports"][0]["port"] == ports[port], f"service {name}")

# Selectors choose the pods.
labels = template["metadata"]["labels"].items()
budget = objects["PodDisruptionBudget", "hilomoe"]["spec"]
selectors = [deployment["spec"]["selector"]["matchLabels"], budget["selector"]["matchLabels"]]
selectors += [objects["Service", name]["spec"]["selector"] for name in ["hilomoe", "hilomoe-metrics"]]
selectors += [spread["labelSelector"]["matchLabels"] for spread in pod["topologySpreadConstraints"]]
check(len(selectors) == 6, "two spread constraints")
for selector in selectors:
    check(selector and selector.items() <= labels, f"selector {selector} does not choose the pods")
check(budget["maxUnavailable"] < deployment["spec"]["replicas"], "draining nodes leaves a replica")

# SIGTERM: the drain ends before the kill.
drain_s = (int(setting("drain_ms")) + int(setting("drain_deadline_ms"))) / 1000
check(pod["terminationGracePeriodSeconds"] >= drain_s + 5, f"the drain takes up to {drain_s} s")
readiness = container["readinessProbe"]
noticed_s = readiness["periodSeconds"] * readiness["failureThreshold"] + readiness["timeoutSeconds"]
check(int(setting("drain_ms")) / 1000 > noticed_s, "the readiness probe notices within drain_ms")

# Probes.
with open(f"{out}/probes", "w") as file:
    for kind in ["startupProbe", "readinessProbe", "livenessProbe"]:
        grpc = container[kind]["grpc"]
        check(grpc["port"] == ports["probe"], f"{kind}'s port")
        file.write(f"{kind} {grpc['port']} {grpc.get('service', '')}\n")

# Security, and what it needs of the image.
user = int(re.search(r"^USER (\d+):(\d+)$", image, re.MULTILINE).group(1))
context = pod["securityContext"]
check(context["runAsNonRoot"] is True and context["runAsUser"] == user and user > 0, "not root, the image's user")
check(context["seccompProfile"] == {"type": "RuntimeDefault"}, "seccomp")
check(pod["automountServiceAccountToken"] is False, "no token of the cluster")
context = container["securityContext"]
check(context["allowPrivilegeEscalation"] is False, "no privilege escalation")
check(context["readOnlyRootFilesystem"] is True, "a read-only root")
check(context["capabilities"] == {"drop": ["ALL"]}, "no capabilities")
check(all(mounted["readOnly"] is True for mounted in container["volumeMounts"]), "every mount is read-only")
check(named(container["volumeMounts"], "models")["mountPath"] == setting("model_repository"), "the models' mount")

# Resources: the server sizes its threads by the CPU limit.
resources = container["resources"]
check(set(resources["limits"]) == {"cpu", "memory"}, "limits")
check(resources["requests"] == resources["limits"], "requests = limits")
check(not container["image"].endswith(":latest") and ":" in container["image"], f"image {container['image']}")
check(deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, "a roll-out keeps all replicas")
print(f"{len(documents)} objects, {checks} checks")
