"""The nearest miss, and what would make it fit."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from memserve.engines import installed
from memserve.engines.rules.judge import subject
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import Candidate
from memserve.plan.losses import weight_loss
from memserve.plan.query import Query
from memserve.plan.search.checkpoints import loaded
from memserve.plan.search.choice import ranked
from memserve.plan.search.offers import consider

Change: TypeAlias = tuple[str, ModelSpec, Machine, Query]

MOST_CARDS = 64
REQUESTED = frozenset({"stored-quantization", "no-checkpoint"})
"""The planner's own refusals of what was asked for."""
REFUSED_AT = {"request": 1.0, "model": 2.0, "card": 3.0, "vendor": 4.0}
"""Another maker's engine is the least telling of all refusals."""


def nearest(rejected: Sequence[Candidate]) -> Candidate | None:
    """The candidate that came furthest: memory before layout before card; then the smallest shortfall."""
    return min(rejected, key=_distance, default=None)


def measured(candidate: Candidate, model: ModelSpec, machine: Machine) -> Candidate:
    """The nearest miss with the memory that it would take, where a rule spoke before memory was asked."""
    if candidate.remote or candidate.footprint is not None:
        return candidate
    memory = installed.named(candidate.backend).memory
    footprint = memory.account(loaded(model, candidate.checkpoint), machine, candidate.deployment)
    return replace(candidate, verdict=replace(candidate.verdict, footprint=footprint))


def _distance(candidate: Candidate) -> tuple[float, ...]:
    footprint = candidate.footprint
    engine = installed.named(candidate.backend).rules.get("rank", 9)
    if footprint is None:
        return (_refused_at(candidate), engine, weight_loss(candidate.checkpoint))
    over = (footprint.weights + footprint.activation + footprint.non_torch) / max(1, footprint.usable)
    return (0.0, over - footprint.max_concurrency, engine)


def _refused_at(candidate: Candidate) -> float:
    """A request, then what the weights or the dtype need, then the release and its card, then the maker."""
    own = candidate.rule in REQUESTED
    return REFUSED_AT["request" if own else subject(installed.named(candidate.backend).rules, candidate.rule)]


def remedies(model: ModelSpec, machine: Machine, query: Query, closest: Candidate) -> Iterator[str]:
    """Changes of the call that were tried and do fit: a shorter context, then the first other change."""
    yield from _shorter(model, machine, closest)
    for words, spec, place, asked in _changes(model, machine, query, closest):
        best = next(iter(ranked(consider(spec, place, asked), spec, place, asked)), None)
        if best is not None:
            yield words.format(_named(best))
            return


def _changes(model: ModelSpec, machine: Machine, query: Query, closest: Candidate) -> Iterator[Change]:
    """One change at a time, in words and as the call that it makes."""
    if closest.rule == "context" and query.job is None:
        words = f"--context {model.max_context}: {{}} fits, and the model was made for no more"
        yield words, model, machine, replace(query, context=model.max_context)
    for name, freed in _freed(query).items():
        if freed != query:
            yield f"leave {name} open: {{}} fits", model, machine, freed
    base = _unquantized(model)
    if base is not None:
        yield f"plan {base.id} instead: {{}} fits", base, machine, query
    count = machine.cards_per_node * 2
    while count <= MOST_CARDS:
        larger = replace(machine, cards_per_node=count, free_memory=None)
        yield f"--gpus {count}x{machine.card.name}: {{}} fits", model, larger, query
        count *= 2


def _unquantized(model: ModelSpec) -> ModelSpec | None:
    """The model that a quantized checkpoint was made from, where the catalogue tells."""
    if model.quantization is None:
        return None
    from memserve.model import catalogue, load

    row, listed = catalogue.find(model.id), catalogue.made_from(model.id)
    base = row.base if row is not None else listed[0].id if listed is not None else None
    return load(base) if base is not None and base != model.id else None


def _freed(query: Query) -> dict[str, Query]:
    return {
        "--quantization": replace(query, quantization=None),
        "--tp": replace(query, tensor_parallel=None),
        "--pp": replace(query, pipeline_parallel=None),
        "--dp": replace(query, data_parallel=None),
        "--kv-dtype": replace(query, kv_dtype=None),
        "--engine-version": replace(query, engine_version=None),
        "--backend": replace(query, backend=None, engine_version=None),
        "the layout": replace(query, tensor_parallel=None, pipeline_parallel=None, data_parallel=None),
    }


def _shorter(model: ModelSpec, machine: Machine, closest: Candidate) -> Iterator[str]:
    if closest.footprint is None:
        return
    memory = installed.named(closest.backend).memory
    largest = memory.largest_context(loaded(model, closest.checkpoint), machine, closest.deployment)
    if 0 < largest < closest.context:
        yield f"--context {largest}: {_named(closest)} holds that many tokens"


def _named(candidate: Candidate) -> str:
    layout = candidate.deployment.layout
    return (
        f"{candidate.backend} {candidate.engine_version} {candidate.quantization}"
        f" tp {layout.tensor} pp {layout.pipeline}"
    )
