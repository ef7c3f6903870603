"""`--embedder MODEL`: a generator and an embedder on the same cards.

The embedder gets one card of its own where the generator holds no less for it; else it shares the first
card, and the generator's budget on every card shrinks by what the embedder takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memserve.engines import installed
from memserve.engines.backend import server_of
from memserve.engines.install import VISIBLE
from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB, Machine
from memserve.model.spec import ModelSpec
from memserve.plan.answer import Answer, answer, answer_in_part, with_deployment
from memserve.plan.candidate import weight_loss
from memserve.plan.page import Section, Shown, show
from memserve.plan.plan import Plan
from memserve.plan.query import PlanOptions, Query
from memserve.plan.search.pricing import price
from memserve.plan.tasks.options import asked

if TYPE_CHECKING:
    from argparse import Namespace
    from os import PathLike

    from typing_extensions import Unpack

BATCH = 8
"""Texts that the embedder holds at once."""
TEXT = 2048
"""Tokens of a text, where the model takes as many."""
PORT = 8001
"""The embedder's, so that both servers can run on one machine."""
MARGIN = GIB // 4
"""What a second process on a card takes beyond its own account: CUDA context rounding, fragmentation."""


@dataclass(frozen=True, repr=False)
class Pair(Shown):
    """Both plans; `embedder` is None where not even it fits."""

    generator: Answer
    embedder: Plan | None
    shared: bool

    @property
    def fits(self) -> bool:
        """Both run at once."""
        return self.generator.plan is not None and self.embedder is not None

    def to_dict(self) -> dict[str, Any]:
        """The generator's answer with the embedder's plan beside it."""
        beside = None
        if self.embedder is not None:
            beside = {**self.embedder.to_dict(), "placement": placement(self)}
        return {**self.generator.to_dict(), "fits": self.fits, "embedder": beside}

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterator[Section]:
        """Both, for a person."""
        yield from self.generator.sections(why=why, everything=everything)
        if self.embedder is None:
            yield Section("the embedder does not fit beside it", style="bad")
            return
        what = "reranker" if self.embedder.model.reranks else "embedder"
        yield Section(f"and the {what}, {placement(self)}", style="good")
        yield from self.embedder.sections()


def run(options: Namespace) -> int:
    """Plan both and print them; 0 if both fit."""
    return show(pair(options.model, options.embedder, options.gpus, **asked(options)), options)


def pair(
    generator: str | PathLike[str] | ModelSpec, embedder: str | PathLike[str] | ModelSpec,
    gpus: str | Machine | None = None, **options: Unpack[PlanOptions],
) -> Pair:  # fmt: skip
    """A generator, planned as the options say, and an embedder on the same cards."""
    from memserve.plan.library import machine_of, model_of

    query = Query.of(**options)
    spec = model_of(generator, query.backend, query.like)
    beside = model_of(embedder)
    listed = None if beside.blocks else price(beside.id, None)
    if not beside.embeds if beside.blocks else listed and listed.output:
        raise InvalidInput(f"{beside.id} generates, and makes no vectors: --beside plans a second generator")
    return planned(spec, beside, machine_of(gpus), query)


def planned(generator: ModelSpec, embedder: ModelSpec, machine: Machine, query: Query) -> Pair:
    """The better of a card apart and a card shared."""
    from memserve.plan.library import answered

    beside = embedding_plan(embedder, machine)
    share = query.headroom + (needed(beside) / machine.card.memory if beside else 0.0)
    if beside is None or share >= 1:
        return Pair(answer(generator, machine, query), None, shared=False)
    left = answer_in_part(generator, machine, query, share, others=True)
    shared = Pair(left, on_card(beside, machine, 0), shared=True)
    if machine.nodes > 1 or machine.cards_per_node < 2:
        return shared
    last = machine.cards_per_node - 1
    alone = answered(generator, replace(machine, cards_per_node=last), query)
    apart = Pair(alone, on_card(beside, machine, last), shared=False)
    return apart if apart.fits and (not shared.fits or _worth(apart) >= _worth(shared)) else shared


def embedding_plan(model: ModelSpec, machine: Machine) -> Plan | None:
    """The embedder alone on one card, with no more memory than a batch of texts needs."""
    one = replace(machine, cards_per_node=1, nodes=1)
    context = min(model.max_context or TEXT, TEXT)
    query = Query(context=context, concurrency=BATCH)
    if model.blocks:
        query = replace(query, tensor_parallel=1, data_parallel=1)
    found = answer(model, one, query).plan
    if found is None or found.footprint is None:
        return found
    share = needed(found) / max(1, found.footprint.total)
    smaller = replace(found.deployment, utilization=round(share + 0.005, 2), max_sequences=BATCH)
    return with_deployment(found, smaller)


def on_card(plan: Plan, machine: Machine, index: int) -> Plan:
    """The embedder's launch on one card of the machine, on a port of its own."""
    if plan.launch is None or plan.footprint is None:
        return plan
    variable = VISIBLE.get(machine.card.vendor)
    env = {**plan.launch.env, **({variable: str(index)} if variable else {})}
    server = server_of(installed.named(plan.backend))
    port = (server.program.port, str(PORT)) if server and not server.program.configured else ()
    return replace(plan, launch=replace(plan.launch, env=env, command=(*plan.launch.command, *port)))


def needed(plan: Plan) -> int:
    """Bytes that the embedder takes from its card."""
    held = plan.footprint
    if held is None:
        return 0
    pool = held.kv_cache / max(1.0, held.max_concurrency) * BATCH
    return int(held.weights + held.activation + held.non_torch + held.graphs + pool) + MARGIN


def _worth(pair: Pair) -> tuple[float, float]:
    """Quality first, then the requests that the generator holds at once."""
    plan = pair.generator.plan
    if plan is None or plan.footprint is None:
        return (-1000.0, 0.0)
    return (-weight_loss(plan.checkpoint), plan.footprint.max_concurrency * plan.data_parallel)


def placement(found: Pair) -> str:
    """Where the embedder sits."""
    if found.embedder is not None and found.embedder.footprint is None:
        return "at its provider"
    return "on the generator's first card" if found.shared else "on the last card, by itself"
