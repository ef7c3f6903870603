"""The commands that start a plan, node by node and in order, where one machine is not enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from math import ceil
from typing import TYPE_CHECKING, Any, Protocol

from memserve import files

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from memserve.engines.deployment import Deployment, Layout
    from memserve.engines.launch import Launch
    from memserve.hardware.machine import Machine

Words = tuple[str, ...]
RAY_WORDS = ("--distributed-executor-backend",)
RANK_WORDS = ("--nnodes", "--node-rank", "--dist-init-addr")


@dataclass(frozen=True)
class Step:
    """One command on one node. `NODE_0`, `NODE_1`, ... stand for the nodes' addresses."""

    node: int
    command: Words
    env: Mapping[str, str] = field(default_factory=dict)

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
    count = taken(plan.machine, plan.deployment.layout)
    engine = facts()["engines"].get(plan.backend) if count > 1 else None
    if engine is None:
        return (Step(0, tuple(plan.command), plan.env),)
    layout = plan.deployment.layout
    spread = _ray if engine["way"] == "ray" else _ranks
    if layout.data > 1 and layout.tensor * layout.pipeline <= plan.machine.cards_per_node:
        spread = _copies if engine["way"] == "ray" else _servers
    return tuple(spread(plan, count))


def taken(machine: Machine, layout: Layout) -> int:
    """Nodes that a layout needs, if no tensor group is split that a node could hold."""
    if layout.cards <= machine.cards_per_node or machine.nodes == 1:
        return 1
    groups = machine.cards_per_node // layout.tensor
    if groups:
        return min(machine.nodes, ceil(layout.pipeline * layout.data / groups))
    return min(machine.nodes, ceil(layout.cards / machine.cards_per_node))


def _ray(plan: Startable, count: int) -> Iterator[Step]:
    """A Ray cluster over the nodes, then one server that finds it."""
    port = facts()["ports"]["ray"]
    start = ("ray", "start", "--disable-usage-stats")
    for node in range(count):
        role = ("--head", f"--port={port}", "--include-dashboard=false")
        words = role if node == 0 else (f"--address={host(0)}:{port}",)
        yield Step(node, (*start, *words, f"--node-ip-address={host(node)}"), environment(plan, node))
    copies = ("--data-parallel-backend", "ray") if plan.deployment.layout.data > 1 else ()
    yield Step(0, (*plan.command, *copies), environment(plan, 0))


def _copies(plan: Startable, count: int) -> Iterator[Step]:
    """vLLM's own data parallelism: the first node answers for all, the others only compute."""
    layout = plan.deployment.layout
    each = plan.machine.cards_per_node // (layout.tensor * layout.pipeline)
    shared = (*without(plan.command, *RAY_WORDS), "--data-parallel-address", host(0),
              "--data-parallel-rpc-port", str(facts()["ports"]["copies"]))  # fmt: skip
    for node in range(count):
        here = ("--data-parallel-size-local", str(min(each, layout.data - node * each)))
        rest = ("--data-parallel-start-rank", str(node * each), "--headless") if node else ()
        yield Step(node, (*shared, *here, *rest), environment(plan, node))


def _ranks(plan: Startable, count: int) -> Iterator[Step]:
    """The same command on every node with its rank; each copy of the model has nodes of its own."""
    layout, port = plan.deployment.layout, facts()["ports"]["sglang"]
    cards = layout.tensor * layout.pipeline
    each = max(1, count // layout.data)
    each = next(number for number in range(each, cards + 1) if cards % number == 0)
    base = without(plan.command, *RANK_WORDS, "--dp-size")
    for first in range(0, each * layout.data, each):
        for rank in range(each):
            words = ("--nnodes", str(each), "--node-rank", str(rank),
                     "--dist-init-addr", f"{host(first)}:{port}")  # fmt: skip
            yield Step(first + rank, (*base, *words), environment(plan, first + rank))


def _servers(plan: Startable, count: int) -> Iterator[Step]:
    """A server of its own on every node, since SGLang keeps copies within a node."""
    layout = plan.deployment.layout
    each = plan.machine.cards_per_node // (layout.tensor * layout.pipeline)
    base = without(plan.command, *RANK_WORDS, "--dp-size")
    for node in range(count):
        yield Step(node, (*base, "--dp-size", str(min(each, layout.data - node * each))), plan.env)


def environment(plan: Startable, node: int) -> dict[str, str]:
    """The plan's variables and those of the network, for one node."""
    known = facts()
    rows = (known["vendors"].get(plan.machine.card.vendor, {}), known["engines"][plan.backend])
    values = {
        "host": host(node), "interface": known["interface"],
        "cards": ",".join(str(card) for card in range(plan.machine.cards_per_node)),
    }  # fmt: skip
    network = {name: text.format(**values) for row in rows for name, text in row.get("env", {}).items()}
    return {**plan.env, **network}


def ray(*extras: str) -> str:
    """The requirement that puts one version of Ray on every node."""
    return f"ray[{','.join(('cgraph', *extras))}]=={facts()['ray']['version']}"


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


@cache
def facts() -> dict[str, Any]:
    """How engines spread over nodes, and what their networks need."""
    found: dict[str, Any] = files.table(__file__, "spread.json")
    return found
