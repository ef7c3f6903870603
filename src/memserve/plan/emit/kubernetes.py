"""KubeRay's RayJob; and a Deployment with its Service, its cache of weights, and what adds copies."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from memserve.engines.install import VISIBLE
from memserve.errors import InvalidInput
from memserve.plan.emit.compose import CACHE
from memserve.plan.emit.server import EVERYWHERE, PYTHON, Server, dump
from memserve.plan.nodes import RAY_VERSION, Step, host, ray
from memserve.plan.storage import disk_gib

SECRET = "memserve"
_ON_RAY = """\
# kubectl apply -f FILE; then kubectl port-forward POD-OF-THE-HEAD {port}
# Keys: kubectl create secret generic {secret} --from-env-file={secret}.env
"""
MOST = 4
"""Copies that the autoscaler may reach."""
_CPUS = "4"
_COMMENT = """\
# kubectl apply -f FILE; then kubectl port-forward service/{name} {port}
# Keys: kubectl create secret generic {secret} --from-env-file={secret}.env ({keys}, ...)
# maxReplicas: as many copies as the cluster has cards for. The cache needs a class that many pods can mount.
"""
_REACHED = ("by prometheus-adapter, or --emit kubernetes-keda", "serverAddress is the cluster's Prometheus")


def text(server: Server, steps: Sequence[Step], bind: str, form: str) -> str:
    """The documents. In a Deployment's pod the server listens to all: the Service decides."""
    if form == "kuberay":
        return _rayjob(server, steps, bind)
    return _served(server, steps, form.endswith("keda"))


def _served(server: Server, steps: Sequence[Step], scaler: bool) -> str:
    plan, program = server.plan, server.program
    if len({step.node for step in steps}) > 1:
        raise InvalidInput("a Deployment's pod is one node, and this plan needs more", hint="--emit kuberay")
    if scaler and not program.waiting:
        raise InvalidInput(
            f"{plan.backend} tells no metric of waiting requests", hint="--emit kubernetes scales by CPU"
        )
    port = program.default_port
    comment = _COMMENT.format(name=server.name, port=port, secret=SECRET, keys=server.keys)
    if server.access.remark:
        comment += f"# {server.access.kubernetes} {server.access.remark}\n"
    if program.waiting:
        comment += f"# {program.waiting} must reach the autoscaler: {_REACHED[scaler]}.\n"
    scaled = _keda(server) if scaler else _autoscaler(server)
    service = {"selector": {"app": server.name}, "ports": [{"name": "http", "port": port}]}
    parts = [
        _claim(server),
        _deployment(server, steps[-1]),
        _resource(server, "v1", "Service", service),
        scaled,
    ]
    return comment + "---\n".join(dump(part) for part in parts if part)


def _resource(
    server: Server, version: str, kind: str, spec: dict[str, Any], ending: str = ""
) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": server.name + ending}, "spec": spec}


def _claim(server: Server) -> dict[str, Any] | None:
    """Room for the weights, which all copies share; a local folder needs none."""
    if server.folder:
        return None
    size = {"requests": {"storage": f"{disk_gib(server.plan)}Gi"}}
    claim = {"accessModes": ["ReadWriteMany"], "resources": size}
    return _resource(server, "v1", "PersistentVolumeClaim", claim, "-models")


def _deployment(server: Server, step: Step) -> dict[str, Any]:
    port, labels = server.program.default_port, {"app": server.name}
    env = {name: value for name, value in step.env.items() if name not in VISIBLE.values()}
    template = _pod(server, env, "server", server.plan.deployment.layout.cards, _command(server, step))
    template["metadata"] = {"labels": labels}
    if server.program.waiting:
        scraped = {"scrape": "true", "port": str(port), "path": "/metrics"}
        template["metadata"]["annotations"] = {f"prometheus.io/{name}": v for name, v in scraped.items()}
    container = template["spec"]["containers"][0]
    container |= _probed(server.program.health, port)
    container.setdefault("resources", {}).setdefault("requests", {})["cpu"] = _CPUS
    for name, place, volume in _volumes(server):
        template["spec"]["volumes"].append({"name": name, **volume})
        read_only = {"readOnly": True} if "hostPath" in volume else {}
        container["volumeMounts"].append({"name": name, "mountPath": place, **read_only})
    template["spec"] |= {"enableServiceLinks": False, "terminationGracePeriodSeconds": 120}
    if server.access.kubernetes:
        template["spec"]["tolerations"] = [{"key": server.access.kubernetes, "operator": "Exists"}]
    return _resource(server, "apps/v1", "Deployment", {
        "replicas": 1, "selector": {"matchLabels": labels}, "template": template,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    })  # fmt: skip


def _probed(path: str, port: int) -> dict[str, Any]:
    """A port and its probes: an hour to start, as the weights may have to be downloaded."""
    health = {"httpGet": {"path": path, "port": port}, "periodSeconds": 10, "timeoutSeconds": 5}
    return {
        "ports": [{"name": "http", "containerPort": port}],
        "startupProbe": {**health, "failureThreshold": 360}, "readinessProbe": health,
        "livenessProbe": {**health, "periodSeconds": 30, "failureThreshold": 5},
    }  # fmt: skip


def _volumes(server: Server) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, place and kind of what is mounted: the weights that all copies share, the host's driver."""
    if not server.folder:
        yield "models", CACHE, {"persistentVolumeClaim": {"claimName": f"{server.name}-models"}}
    for number, folder in enumerate(server.access.folders):
        yield f"driver-{number}", folder, {"hostPath": {"path": folder}}


def _command(server: Server, step: Step) -> list[str]:
    words = server.listening((*step.command, *server.program.metrics_flags), EVERYWHERE)
    if server.image != PYTHON:
        return [word.replace("$(", "$$(") for word in words]  # Kubernetes replaces $(NAME) in a command
    line = f"{server.install} && exec {shlex.join(words)}"
    return ["bash", "-c", line.replace("$(", "$$(")]


def _waiting(server: Server) -> int:
    """Requests that may wait for a copy before another is started: a quarter of what one has in work."""
    return max(1, server.plan.concurrency // 4)


def _autoscaler(server: Server) -> dict[str, Any]:
    metric: dict[str, Any] = {"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80},
    }}  # fmt: skip
    if server.program.waiting:
        target = {"type": "AverageValue", "averageValue": str(_waiting(server))}
        metric = {"type": "Pods", "pods": {"metric": {"name": server.program.waiting}, "target": target}}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": server.name},
        "minReplicas": 1, "maxReplicas": MOST, "metrics": [metric],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
    }  # fmt: skip
    return _resource(server, "autoscaling/v2", "HorizontalPodAutoscaler", spec)


def _keda(server: Server) -> dict[str, Any]:
    query = f'sum({server.program.waiting}{{pod=~"{server.name}-.*"}})'
    trigger = {"type": "prometheus", "metadata": {
        "serverAddress": "http://prometheus-server.monitoring.svc", "query": query,
        "threshold": str(_waiting(server)),
    }}  # fmt: skip
    spec = {
        "scaleTargetRef": {"name": server.name}, "minReplicaCount": 1, "maxReplicaCount": MOST,
        "cooldownPeriod": 600, "triggers": [trigger],
    }  # fmt: skip
    return _resource(server, "keda.sh/v1alpha1", "ScaledObject", spec)


def _rayjob(server: Server, steps: Sequence[Step], bind: str) -> str:
    """A Ray cluster of one pod per node, and the server as its job; only for engines that run on Ray."""
    plan = server.plan
    spread = server.facts.nodes
    if spread is None or spread.way != "ray":
        raise InvalidInput(
            f"KubeRay starts Ray clusters, and {plan.backend} does not run on Ray",
            hint="--emit compose or --emit slurm",
        )
    nodes = 1 + max(step.node for step in steps)
    copies = spread.copies_over_ray if nodes > 1 and plan.data_parallel > 1 else ()
    command = server.listening((*plan.command, *copies), bind)
    whole = {
        "apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": server.name},
        "spec": {
            "entrypoint": shlex.join(command),
            "submissionMode": "HTTPMode",
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": _cluster(server, steps[-1].env, nodes),
        },
    }  # fmt: skip
    return _ON_RAY.format(port=server.program.default_port, secret=SECRET) + dump(whole)


def _cluster(server: Server, env: Mapping[str, str], nodes: int) -> dict[str, Any]:
    start, cards, before = _start(server), server.plan.machine.cards_per_node, [_prepared(server)]
    cluster: dict[str, Any] = {
        "rayVersion": RAY_VERSION,
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": EVERYWHERE, **start},
            "template": _pod(server, env, "ray-head", cards, before),
        },
    }
    if nodes > 1:
        cluster["workerGroupSpecs"] = [{
            "groupName": "workers", "replicas": nodes - 1, "minReplicas": nodes - 1, "maxReplicas": nodes - 1,
            "rayStartParams": start, "template": _pod(server, env, "ray-worker", cards, before),
        }]  # fmt: skip
    return cluster


def _start(server: Server) -> dict[str, str]:
    """Ray does not see every maker's cards that Kubernetes counts under a name of its own."""
    if not server.access.ray:
        return {}
    return {"resources": f'"{{\\"{server.access.ray}\\": {server.plan.machine.cards_per_node}}}"'}


def _pod(server: Server, env: Mapping[str, str], name: str, cards: int,
        command: Sequence[str]) -> dict[str, Any]:  # fmt: skip
    """The template of a pod with one container."""
    volumes: list[dict[str, Any]] = [{"name": "shared", "emptyDir": {"medium": "Memory"}}]
    mounts = [{"name": "shared", "mountPath": "/dev/shm"}]
    if server.folder:
        volumes.append({"name": "model", "hostPath": {"path": server.folder, "type": "Directory"}})
        mounts.append({"name": "model", "mountPath": server.folder})
    container: dict[str, Any] = {
        "name": name, "image": server.image, "command": list(command),
        "env": [_variable(name, value) for name, value in env.items()],
        "envFrom": [{"secretRef": {"name": SECRET, "optional": True}}],
        "volumeMounts": mounts,
    }  # fmt: skip
    if server.access.kubernetes:
        count = {server.access.kubernetes: cards}
        container["resources"] = {"limits": count, "requests": dict(count)}
    return {"spec": {"containers": [container], "volumes": volumes}}


def _prepared(server: Server) -> str:
    """KubeRay runs this before `ray start`: engine images come without Ray, or with another one."""
    install = f"{server.install} && " if server.bare else ""
    return f"{install}python3 -m pip install --quiet {shlex.quote(ray('default'))}"


def _variable(name: str, value: str) -> dict[str, Any]:
    """A variable; a node's own address is what Kubernetes says."""
    if value.startswith(host(0)[:-1]):
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return {"name": name, "value": value}
