"""The nearest miss, and what would make it fit."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from memserve.engines import installed
from memserve.engines.rules.judge import subject
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import Candidate
from memserve.plan.losses import BELOW_4_BIT, WEIGHTS, steps, weight_loss
from memserve.plan.query import Query
from memserve.plan.search.checkpoints import loaded
from memserve.plan.search.choice import ranked
from memserve.plan.search.offers import CARDS_OF_A_NODE, consider

Change: TypeAlias = tuple[str, ModelSpec, Machine, Query]

MOST_CARDS = 64
STEP = 256
"""Tokens that a shorter context is rounded to."""
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
    if candidate.remote:
        return (REFUSED_AT["model"],)
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
    """Changes of the call that were tried and hold all else that was asked."""
    yield from _less(model, machine, query, closest)
    for words, spec, place, asked in _changes(model, machine, query, closest):
        best = _best(spec, place, asked)
        if best is not None:
            yield words.format(_named(best))
            break
    for level in WEIGHTS if query.quantization is None else ():
        if steps(WEIGHTS[level], "auto") >= BELOW_4_BIT:
            best = _best(model, machine, replace(query, quantization=level))
            if best is not None:
                yield f"--quantization {level}: {_named(best)} fits, far behind 4 bits"
                return


def _best(model: ModelSpec, machine: Machine, query: Query) -> Candidate | None:
    return next(iter(ranked(consider(model, machine, query), model, machine, query)), None)


def _less(model: ModelSpec, machine: Machine, query: Query, closest: Candidate) -> Iterator[str]:
    """A shorter context for as many requests, or fewer requests, of the nearest miss."""
    footprint = closest.footprint
    if footprint is None:
        return
    same = replace(query, backend=closest.backend, engine_version=closest.engine_version,
                   quantization=closest.quantization)  # fmt: skip
    memory = installed.named(closest.backend).memory
    largest = memory.largest_context(loaded(model, closest.checkpoint), machine, closest.deployment)
    held = footprint.max_concurrency * closest.data_parallel
    share = int(held * closest.context / query.concurrency) // STEP * STEP
    for tokens in dict.fromkeys((largest, share, share // 2)):
        best = _best(model, machine, replace(same, context=tokens)) if 0 < tokens < closest.context else None
        if best is not None:
            yield f"--context {tokens}: {_named(best)} holds that many tokens"
            break
    best = (
        _best(model, machine, replace(same, concurrency=int(held))) if 1 <= held < query.concurrency else None
    )
    if best is not None:
        yield f"--concurrency {int(held)}: {_named(best)} holds that many requests"


def _changes(model: ModelSpec, machine: Machine, query: Query, closest: Candidate) -> Iterator[Change]:
    """One change at a time, in words and as the call that it makes."""
    if closest.rule == "context" and query.job is None:
        words = f"--context {model.max_context}: {{}} fits, and the model was made for no more"
        yield words, model, machine, replace(query, context=model.max_context)
    for name, freed in _freed(query).items():
        if freed != query and name == "--kv-dtype":
            best = _best(model, machine, freed)
            if best is not None:
                yield f"--kv-dtype {best.kv_dtype}: {{}} fits", model, machine, freed
        elif freed != query:
            yield f"leave {name} open: {{}} fits", model, machine, freed
    base = _unquantized(model)
    if base is not None:
        yield f"plan {base.id} instead: {{}} fits", base, machine, query
    for larger in _larger(machine):
        spec = f"{larger.nodes}x" * (larger.nodes > 1) + f"{larger.cards_per_node}x{machine.card.name}"
        yield f"--gpus {spec}: {{}} fits", model, larger, query


def _larger(machine: Machine) -> Iterator[Machine]:
    """Twice the cards and so on: in one node while there are such nodes, then in more of them."""
    machine = replace(machine, free_memory=None)
    while machine.cards * 2 <= MOST_CARDS:
        if machine.nodes == 1 and machine.cards_per_node * 2 <= CARDS_OF_A_NODE:
            machine = replace(machine, cards_per_node=machine.cards_per_node * 2)
        else:
            machine = replace(machine, nodes=machine.nodes * 2)
        yield machine


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


def _named(candidate: Candidate) -> str:
    layout = candidate.deployment.layout
    return (
        f"{candidate.backend} {candidate.engine_version} {candidate.quantization}"
        f" tp {layout.tensor} pp {layout.pipeline}"
    )
