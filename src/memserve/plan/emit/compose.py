"""A Compose file: one service, or one for each node under a profile of its own."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from memserve.engines.install import VISIBLE
from memserve.plan.emit.server import EVERYWHERE, LOOPBACK, SECRETS, Server, addressed, dump
from memserve.plan.nodes import INTERFACE, Step, host, ray

CACHE = "/root/.cache/huggingface"
LONG_START = "1h"
"""A large checkpoint is downloaded and loaded before the server answers."""


def text(server: Server, steps: Sequence[Step], bind: str, form: str) -> str:
    """The file, with a comment that says how to start it."""
    nodes = sorted({step.node for step in steps})
    alone = len(nodes) == 1
    services = {
        server.name if alone else f"node-{node}": _service(
            server, [step for step in steps if step.node == node], bind, alone=alone
        )
        for node in nodes
    }
    whole = {"name": server.name, "services": services, "volumes": {"models": {}}}
    return "".join(f"# {line}\n" for line in _comment(server, nodes)) + dump(whole)


def several(servers: Sequence[tuple[Server, Sequence[Step]]], bind: str) -> str:
    """Servers of one machine, each on its own cards; on the outside each has the next port."""
    services = {}
    for at, (server, steps) in enumerate(servers):
        service = _service(server, steps, bind, alone=True)
        inside = server.program.default_port
        service["ports"] = [f"{bind}:{servers[0][0].program.default_port + at}:{inside}"]
        services[server.name if server.name not in services else f"{server.name}-{at + 1}"] = service
    whole = {"name": "memserve", "services": services, "volumes": {"models": {}}}
    return "".join(f"# {line}\n" for line in _comment(servers[0][0], [0])) + dump(whole)


def _comment(server: Server, nodes: Sequence[int]) -> list[str]:
    keys = f"Keys ({server.keys}, ...) belong into {SECRETS} beside this file."
    if len(nodes) == 1:
        return ["docker compose up -d", keys]
    return [
        "On each node N, the first one first: docker compose --profile node-N up -d",
        f"Into .env beside this file: {' '.join(f'{host(node)}=ADDRESS' for node in nodes)}",
        "and MEMSERVE_INTERFACE=NAME, if the nodes' network interface is not eth0.",
        keys,
    ]  # fmt: skip


def _service(server: Server, steps: Sequence[Step], bind: str, *, alone: bool) -> dict[str, Any]:
    address = bind if not alone else EVERYWHERE  # a container's own network: the published port decides
    service: dict[str, Any] = {} if alone else {"profiles": [f"node-{steps[0].node}"]}
    service |= {"image": server.image, "entrypoint": [], "command": _command(server, steps, address)}
    service["environment"] = _variables(server, steps[-1].env)
    service |= {
        "env_file": [{"path": SECRETS, "required": False}],
        "ipc": "host",
        "ulimits": {"memlock": -1, "stack": 67108864},
        "volumes": [f"models:{CACHE}", *_folders(server)],
        **_cards(server, steps[-1].env),
        **(
            {"ports": [f"{bind}:{server.program.default_port}:{server.program.default_port}"]}
            if alone
            else {"network_mode": "host"}
        ),
        "restart": "unless-stopped" if alone else "on-failure",
    }
    if steps[-1].serves:
        service["healthcheck"] = _health(server)
    return service


def _command(server: Server, steps: Sequence[Step], address: str) -> list[str]:
    """The words of a lone command, or a shell line where something must run before it."""
    commands = [  # the last in the foreground: a container ends with it
        (*step.command, "--block") if step.joins and step is steps[-1] else step.command for step in steps
    ]
    if not steps[-1].joins:
        commands[-1] = server.listening(commands[-1], address)
    before = [server.install] if server.bare else []
    if steps[0].joins:
        before.append(f"python3 -m pip install --quiet {shlex.quote(ray())}")
    before += [shlex.join(command) for command in commands[:-1]]
    if not before:  # nothing to wait for: no shell between the runtime and the engine
        literal = server.plan.checkpoint.id
        return [_literal(word) if word == literal else _escaped(word) for word in commands[-1]]
    line = " && ".join((*before, "exec " + shlex.join(commands[-1])))
    return ["bash", "-c", _escaped(line)]


def _escaped(word: str) -> str:
    """Compose replaces $NAME everywhere: a literal dollar is doubled, a node's address becomes a variable."""
    return addressed(_literal(word), "${{{0}:?the address of that node}}")


def _literal(word: str) -> str:
    return word.replace("$", "$$")


def _variables(server: Server, env: Mapping[str, str]) -> dict[str, str]:
    """Where the container runtime hands in single cards, it is told which instead."""
    named, single = INTERFACE, server.access.driver or server.access.device
    chosen = {name: value for name, value in env.items() if not (single and name in VISIBLE.values())}
    return {
        name: f"${{MEMSERVE_INTERFACE:-{named}}}" if value == named else _escaped(value)
        for name, value in chosen.items()
    }


def _cards(server: Server, env: Mapping[str, str]) -> dict[str, Any]:
    machine, access = server.plan.machine, server.access
    seen = env.get(VISIBLE.get(machine.card.vendor, ""))
    if access.driver:
        chosen = {"device_ids": seen.split(",")} if seen else {"count": machine.cards_per_node}
        reserved = [{"driver": access.driver, **chosen, "capabilities": ["gpu"]}]
        return {"deploy": {"resources": {"reservations": {"devices": reserved}}}}
    own = seen.split(",") if seen else range(machine.cards_per_node)
    devices = [*(access.device.format(card) for card in own if access.device), *access.devices]
    said = {"devices": devices, "group_add": list(access.groups)}
    return {name: value for name, value in said.items() if value}


def _folders(server: Server) -> list[str | dict[str, Any]]:
    mounts: list[str | dict[str, Any]] = [f"{folder}:{folder}:ro" for folder in server.access.folders]
    if server.folder:  # spelled out: a colon in a name would end it in the short form
        place = _literal(server.folder)
        mounts.append({"type": "bind", "source": place, "target": place, "read_only": True})
    return mounts


def _health(server: Server) -> dict[str, Any]:
    url = f"http://{LOOPBACK}:{server.program.default_port}{server.program.health}"
    test = f"import urllib.request as u; u.urlopen('{url}', timeout=5)"
    return {"test": ["CMD", "python3", "-c", test], "interval": "30s", "timeout": "10s",
            "start_period": LONG_START}  # fmt: skip
