"""A RayJob for KubeRay: a Ray cluster of one pod per node, and the server as its job."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from memserve.errors import InvalidInput
from memserve.plan.emit.server import EVERYWHERE, Server, dump
from memserve.plan.nodes import RAY_VERSION, Step, host, ray

SECRET = "memserve"
RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "ascend": "huawei.com/Ascend910"}
COMMENT = """\
# kubectl apply -f FILE; then kubectl port-forward POD-OF-THE-HEAD {port}
# Keys: kubectl create secret generic {secret} --from-env-file={secret}.env
"""


def text(server: Server, steps: Sequence[Step], bind: str) -> str:
    """The resource; only for engines that run on Ray."""
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
    return COMMENT.format(port=server.program.default_port, secret=SECRET) + dump(whole)


def _cluster(server: Server, env: Mapping[str, str], nodes: int) -> dict[str, Any]:
    start = _start(server)
    cluster: dict[str, Any] = {
        "rayVersion": RAY_VERSION,
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": EVERYWHERE, **start},
            "template": _pod(server, env, "ray-head"),
        },
    }
    if nodes > 1:
        cluster["workerGroupSpecs"] = [{
            "groupName": "workers", "replicas": nodes - 1, "minReplicas": nodes - 1, "maxReplicas": nodes - 1,
            "rayStartParams": start, "template": _pod(server, env, "ray-worker"),
        }]  # fmt: skip
    return cluster


def _start(server: Server) -> dict[str, str]:
    """Ray does not see NPUs that Kubernetes counts under Huawei's own name."""
    if server.plan.machine.card.vendor != "ascend":
        return {}
    return {"resources": f'"{{\\"NPU\\": {server.plan.machine.cards_per_node}}}"'}


def _pod(server: Server, env: Mapping[str, str], name: str) -> dict[str, Any]:
    machine = server.plan.machine
    volumes: list[dict[str, Any]] = [{"name": "shared", "emptyDir": {"medium": "Memory"}}]
    mounts = [{"name": "shared", "mountPath": "/dev/shm"}]
    if server.folder:
        volumes.append({"name": "model", "hostPath": {"path": server.folder, "type": "Directory"}})
        mounts.append({"name": "model", "mountPath": server.folder})
    container: dict[str, Any] = {
        "name": name, "image": server.image, "command": [_prepared(server)],
        "env": [_variable(name, value) for name, value in env.items()],
        "envFrom": [{"secretRef": {"name": SECRET, "optional": True}}],
        "volumeMounts": mounts,
    }  # fmt: skip
    if machine.card.vendor in RESOURCES:
        count = {RESOURCES[machine.card.vendor]: machine.cards_per_node}
        container["resources"] = {"limits": count, "requests": count}
    return {"spec": {"containers": [container], "volumes": volumes}}


def _prepared(server: Server) -> str:
    """KubeRay runs this before `ray start`: engine images come without Ray, or with another one."""
    install = f"{server.plan.install} && " if server.bare else ""
    return f"{install}python3 -m pip install --quiet {shlex.quote(ray('default'))}"


def _variable(name: str, value: str) -> dict[str, Any]:
    """A variable; a node's own address is what Kubernetes says."""
    if value.startswith(host(0)[:-1]):
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return {"name": name, "value": value}
