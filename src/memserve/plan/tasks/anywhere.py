"""`--gpus any`: the smallest machine of each card that holds a model, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from memserve.engines import installed
from memserve.engines.backend import Plannable
from memserve.engines.rules.judge import Judge, always
from memserve.hardware import instances
from memserve.model.spec import ModelSpec
from memserve.plan.answer import Answer, Maker, answer, smaller
from memserve.plan.candidate import Candidate
from memserve.plan.page import Section, Shown, show
from memserve.plan.plan import machine_object
from memserve.plan.query import MOST, PlanOptions, Query
from memserve.plan.search.checkpoints import known_methods
from memserve.plan.search.choice import first
from memserve.plan.search.offers import of_backend, on_time, versions
from memserve.plan.search.pricing import context_of
from memserve.plan.sections import part
from memserve.plan.tasks.options import asked

if TYPE_CHECKING:
    from argparse import Namespace
    from os import PathLike

    from typing_extensions import Unpack

    from memserve.hardware.machine import Card, Machine, Rent

COUNTS = (1, 2, 4, 8, 16)
LEVELS = {
    "16 bit": ("none",), "8 bit": ("fp8", "w8a8", "int8", "gguf-q8_0"),
    "4 bit": ("gptq", "awq", "w4a16", "nf4", "gguf-q4_k_m"),
}  # fmt: skip
LEAST_BYTES = {"16 bit": 2.0, "8 bit": 1.0, "4 bit": 0.5, "otherwise": 0.4}
"""Per parameter: a machine with less memory in all need not be judged."""


@dataclass(frozen=True)
class Row:
    """One card: how many of it each level needs, and the engine and price of the smallest machine."""

    model: ModelSpec
    card: Card
    counts: dict[str, int | None]
    smallest: Candidate
    machine: Machine
    rent: Rent

    @property
    def usd_per_hour(self) -> float | None:
        """What these cards cost, where it is known."""
        return self.rent.usd_per_hour


@dataclass(frozen=True, repr=False)
class Machines(Shown):
    """The smallest machine of each card that holds a model, the cheapest first."""

    model: ModelSpec
    rows: tuple[Row, ...]
    answer: Answer
    """On the first of them, at a provider that needs none, or the closest miss on the widest."""

    @property
    def fits(self) -> bool:
        """Some card holds the model, or none is needed."""
        return self.answer.fits

    def to_dict(self) -> dict[str, Any]:
        """The plan of the cheapest machine, and all machines with theirs."""
        return {
            **self.answer.to_dict(),
            "machines": [row_object(row, self.answer.query) for row in self.rows],
        }

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterator[Section]:
        """The table for a person; without one, the answer at a provider or the closest miss."""
        if self.rows:
            yield from _table(self.model, self.rows, self.answer.query)
        elif self.answer.fits or (self.answer.closest and self.answer.closest.remote):
            yield from self.answer.sections(why=why, everything=everything)
        else:
            yield from _missed(self.answer)


def run(options: Namespace) -> int:
    """Print the table; 0 if any card holds the model."""
    return show(anywhere(options.model, **asked(options)), options)


def anywhere(model: str | PathLike[str] | ModelSpec, **options: Unpack[PlanOptions]) -> Machines:
    """The smallest machine of each card that holds a model."""
    from memserve.plan.library import model_of, on_cards

    query = Query.of(**options)
    spec = on_cards(model_of(model, query.backend, query.like), query.backend)
    local = bool(spec.blocks) and installed.plans_locally(query.backend)
    rows = sorted(
        table(spec, query) if local else (),
        key=lambda row: (row.usd_per_hour is None, row.usd_per_hour or 0.0, row.machine.cards),
    )
    return Machines(spec, tuple(rows), answer(spec, rows[0].machine if rows else largest(), query))


def table(model: ModelSpec, query: Query) -> Iterator[Row]:
    """Every card that holds the model in some number."""
    from memserve.hardware import cards

    if context_of(model, query) > (model.max_context or MOST):
        return  # no card makes a model read further than it was made for
    asked = installed.asked(query.backend, query.engine_version)
    for card in cards():
        if card.vendor != "cpu":
            row = row_of(model, smaller(card, query.headroom), query, asked)
            if row is not None:
                yield row


def row_of(model: ModelSpec, card: Card, query: Query, asked: Sequence[str]) -> Row | None:
    """The smallest machine per level; a level that the card cannot run stays empty."""
    levels = LEVELS
    if model.quantization:
        stored = (model.quantization.method,)
        others = {*model.levels, *known_methods(model)}.difference(stored)
        levels = {"as stored": stored, "otherwise": tuple(sorted(others))}
    if query.quantization:
        levels = {query.quantization: (query.quantization,)}
    searches = [Search(model, card, query, able) for able in engines(model, card, query, asked) if able]
    found = {level: fewest(searches, level, words) for level, words in levels.items()}
    fitting = [one for one in found.values() if one is not None]
    if not fitting:
        return None
    machine, candidate = min(fitting, key=lambda one: one[0].cards)
    candidate = first(model, machine, query) or candidate
    counts = {level: one[0].cards if one else None for level, one in found.items()}
    return Row(model, card, counts, candidate, machine, instances.rent(machine))


def engines(model: ModelSpec, card: Card, query: Query, asked: Sequence[str]) -> tuple[list[str], ...]:
    """The engines with a release for card and model: those that batch, and the others."""
    from memserve.hardware.machine import Machine

    able = [name for name in asked if _runs(name, model, Machine(card=card), query)]
    return [name for name in able if _batches(name)], [name for name in able if not _batches(name)]


def _batches(name: str) -> bool:
    return bool(installed.named(name).rules["serves"].get("continuous_batching"))


def _runs(name: str, model: ModelSpec, machine: Machine, query: Query) -> bool:
    rules = installed.named(name).rules
    return any(Judge(rules, one, model, machine).model() is None for one in versions(rules, query))


def fewest(searches: Sequence[Search], level: str, words: Sequence[str]) -> tuple[Machine, Candidate] | None:
    """The smallest machine of a level, by the first engines that have one."""
    for search in searches:
        if found := search.smallest(words, search.model.parameters * LEAST_BYTES.get(level, 0.0)):
            return found
    return None


class Search:
    """Looks for the fewest cards of one kind that hold a model."""

    def __init__(self, model: ModelSpec, card: Card, query: Query, able: Sequence[str]) -> None:
        self.model, self.card, self.query, self.able = model, card, query, able
        self.refused: set[tuple[str, str]] = set()
        """Rooms with the quantizations that they refuse on any number of these cards."""

    def smallest(self, quantizations: Sequence[str], least: float) -> tuple[Machine, Candidate] | None:
        """The fewest cards of one node on which one of these quantizations runs."""
        from memserve.hardware.machine import Machine

        for count in COUNTS:
            if least > count * self.card.memory or count > self.card.per_node:
                continue
            machine = Machine(card=self.card, cards_per_node=count)
            for quantization in quantizations:
                candidate = self.first(machine, quantization)
                if candidate is not None:
                    return machine, candidate
        return None

    def first(self, machine: Machine, quantization: str) -> Candidate | None:
        """A candidate over all cards that fits, of the most trusted engine that has one."""
        for name in self.able:
            if (name, quantization) not in self.refused:
                found = self.of_backend(name, machine, quantization)
                if found is not None:
                    return found
        return None

    def of_backend(self, name: str, machine: Machine, quantization: str) -> Candidate | None:
        """All cards at once, then any layout where rules forbid that."""
        backend = installed.named(name)
        query = replace(self.query, quantization=quantization)
        for narrowed in (pinned(query, machine, backend), query):
            judged = []
            for found in of_backend(name, backend, self.model, machine, narrowed):
                one = on_time(found, self.model, machine, query)
                if one.fits:
                    return one
                judged.append(one)
            if judged and judged[-1].footprint is not None:
                break  # the rules allow all cards at once, and not even so does it fit
            if all(always(backend.rules, one.verdict.rule) for one in judged):
                self.refused.add((name, quantization))
                break
        return None


def pinned(query: Query, machine: Machine, backend: Plannable) -> Query:
    """One copy of the model over all cards."""
    cards, layers = machine.cards_per_node, backend.rules["serves"].get("layers_over_cards")
    return replace(
        query, tensor_parallel=query.tensor_parallel or (1 if layers else cards),
        pipeline_parallel=query.pipeline_parallel or (cards if layers else 1), data_parallel=1,
    )  # fmt: skip


def largest() -> Machine:
    """The widest machine that is tried, where the closest miss is looked for."""
    from memserve.hardware import cards
    from memserve.hardware.machine import Machine

    widest = max((card for card in cards() if card.vendor == "nvidia"), key=lambda card: card.memory)
    return Machine(card=widest, cards_per_node=COUNTS[-1])


def row_object(row: Row, query: Query) -> dict[str, Any]:
    """One card's smallest machine, and the plan for it."""
    plan = Maker(row.model, row.machine, query, ()).plan(row.smallest, brief=True)
    return {
        "machine": machine_object(row.machine), "plan": plan.bare(),
        "card": row.card.name, "cards": row.machine.cards, "cards_by_level": row.counts,
        "backend": row.smallest.backend, "engine_version": row.smallest.engine_version,
        "quantization": row.smallest.quantization, "tensor_parallel": row.smallest.tensor_parallel,
        "pipeline_parallel": row.smallest.pipeline_parallel,
        "usd_per_hour": row.usd_per_hour, "price_source": row.rent.source,
    }  # fmt: skip


def _table(model: ModelSpec, rows: Sequence[Row], query: Query) -> Iterator[Section]:
    levels = tuple(rows[0].counts)
    yield Section(f"the smallest machine of each card that holds {model.id}", style="good")
    job = ("hours", "$") if query.job else ()
    header = ("card", *(f"cards at {level}" for level in levels), "smallest runs", *job, "$/h", "of")
    cells = tuple(
        (
            row.card.name, *(str(row.counts[level] or "-") for level in levels),
            f"{row.smallest.backend} {row.smallest.engine_version} {row.smallest.quantization}",
            *(_of_job(row, query) if job else ()),
            "-" if row.usd_per_hour is None else f"{row.usd_per_hour:.2f}", part(row.rent),
        )
        for row in rows
    )  # fmt: skip
    yield Section(header=header, rows=cells)


def _of_job(row: Row, query: Query) -> tuple[str, str]:
    """Hours and dollars of the workload on a card's smallest machine."""
    told = Maker(row.model, row.machine, query, ()).plan(row.smallest, brief=True).workload or {}
    hours, usd = told.get("hours"), told.get("usd")
    return f"{hours['likely']:.3g}" if hours else "-", f"{usd['likely']:.2f}" if usd else "-"


def _missed(found: Answer) -> Iterator[Section]:
    """Why not even the widest machine does, and what would."""
    yield Section(f"no single node of up to {COUNTS[-1]} cards holds {found.model.id}", style="bad")
    if found.closest is not None:
        where = f"{found.machine.cards}x{found.machine.card.name}"
        yield Section(f"the closest, {found.closest.backend} on {where}", lines=(found.closest.reason,))
    if found.remedies:
        yield Section("what would fit", lines=found.remedies, style="good")
