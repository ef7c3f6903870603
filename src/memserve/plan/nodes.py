"""The commands that start a plan, node by node and in order, where one machine is not enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, Protocol

from memserve import files
from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.launch import Launch
from memserve.hardware.machine import Machine

if TYPE_CHECKING:
    from memserve.engines.server import Spread

Words = tuple[str, ...]
NETWORKS: dict[str, Any] = files.table(__file__, "networks.json")
INTERFACE: str = NETWORKS["interface"]
RAY_VERSION, RAY_PORT = NETWORKS["ray"]["version"], NETWORKS["ray"]["port"]


@dataclass(frozen=True)
class Step:
    """One command on one node. `NODE_0`, `NODE_1`, ... stand for the nodes' addresses."""

    node: int
    command: Words
    env: Mapping[str, str] = field(default_factory=dict)
    serves: bool = True
    """It answers requests; others only compute, or start a node of a Ray cluster."""

    @property
    def joins(self) -> bool:
        """It starts a node of a Ray cluster, and no server."""
        return self.command[:2] == ("ray", "start")

    def to_dict(self) -> dict[str, Any]:
        """As an entry of the plan's `nodes`."""
        return {"node": self.node, "command": list(self.command), "env": dict(self.env)}


class Startable(Protocol):
    """What is read of a plan to start it."""

    @property
    def backend(self) -> str: ...
    @property
    def machine(self) -> Machine: ...
    @property
    def deployment(self) -> Deployment: ...
    @property
    def launch(self) -> Launch | None: ...
    @property
    def command(self) -> list[str]: ...
    @property
    def env(self) -> dict[str, str]: ...


def steps(plan: Startable) -> tuple[Step, ...]:
    """What to run, and where: one step for a plan that one node holds, none for a provider's."""
    if plan.launch is None or not plan.command:
        return ()
    count, layout = taken(plan.machine, plan.deployment.layout), plan.deployment.layout
    server = server_of(installed.named(plan.backend)) if count > 1 else None
    if server is None or server.nodes is None:
        return (Step(0, tuple(plan.command), plan.env),)
    whole = layout.data > 1 and layout.tensor * layout.pipeline <= plan.machine.cards_per_node
    spread = _copies if whole and server.nodes.copies else _ray if server.nodes.way == "ray" else _ranks
    return tuple(spread(plan, server.nodes, count))


def taken(machine: Machine, layout: Layout) -> int:
    """Nodes that a layout needs, if no tensor group is split that a node could hold."""
    if layout.cards <= machine.cards_per_node or machine.nodes == 1:
        return 1
    groups = machine.cards_per_node // layout.tensor
    if groups:
        return min(machine.nodes, ceil(layout.pipeline * layout.data / groups))
    return min(machine.nodes, ceil(layout.cards / machine.cards_per_node))


def _ray(plan: Startable, spread: Spread, count: int) -> Iterator[Step]:
    """A Ray cluster over the nodes, then one server that finds it."""
    start = ("ray", "start", "--disable-usage-stats")
    for node in range(count):
        role = ("--head", f"--port={RAY_PORT}", "--include-dashboard=false")
        words = role if node == 0 else (f"--address={host(0)}:{RAY_PORT}",)
        env = environment(plan, spread, node)
        yield Step(node, (*start, *words, f"--node-ip-address={host(node)}"), env, serves=False)
    copies = spread.copies_over_ray if plan.deployment.layout.data > 1 else ()
    yield Step(0, (*plan.command, *copies), environment(plan, spread, 0))


def _ranks(plan: Startable, spread: Spread, count: int) -> Iterator[Step]:
    """The same command on every node with its rank; each copy of the model has nodes of its own."""
    layout = plan.deployment.layout
    cards = layout.tensor * layout.pipeline
    each = max(1, count // layout.data)
    each = next(number for number in range(each, cards + 1) if cards % number == 0)
    base = without(plan.command, *spread.without)
    for node in range(each * layout.data):
        first, rank = node // each * each, node % each
        words = filled(spread.every, head=host(first), count=each, rank=rank)
        yield Step(node, (*base, *words), environment(plan, spread, node))


def _copies(plan: Startable, spread: Spread, count: int) -> Iterator[Step]:
    """Whole copies of the model on every node: servers of their own, or one that answers for all."""
    layout = plan.deployment.layout
    each = plan.machine.cards_per_node // (layout.tensor * layout.pipeline)
    base = without(plan.command, *spread.without)
    for node in range(count):
        template = (*spread.copies, *(spread.copies_later if node else ()))
        words = filled(template, head=host(0), here=min(each, layout.data - node * each), first=node * each)
        alone = bool(node and spread.copies_later)
        yield Step(node, (*base, *words), environment(plan, spread, node), serves=not alone)


def filled(words: Words, **values: object) -> Words:
    """A backend's words with their holes filled."""
    return tuple(word.format(**values) for word in words)


def environment(plan: Startable, spread: Spread, node: int) -> dict[str, str]:
    """The plan's variables and those of the network, for one node."""
    values = {
        "host": host(node), "interface": INTERFACE,
        "cards": ",".join(str(card) for card in range(plan.machine.cards_per_node)),
    }  # fmt: skip
    network = {**NETWORKS["vendors"].get(plan.machine.card.vendor, {}).get("env", {}), **spread.env}
    return {**plan.env, **{name: text.format(**values) for name, text in network.items()}}


def ray(*extras: str) -> str:
    """The requirement that puts one version of Ray on every node."""
    return f"ray[{','.join(('cgraph', *extras))}]=={RAY_VERSION}"


def host(node: int) -> str:
    """What stands for a node's address until it is known."""
    return f"NODE_{node}"


def without(command: list[str], *flags: str) -> Words:
    """A command without some options and their values."""
    kept: list[str] = []
    words = iter(command)
    for word in words:
        if word in flags:
            next(words, None)
        else:
            kept.append(word)
    return tuple(kept)
