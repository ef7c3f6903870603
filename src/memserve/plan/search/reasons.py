"""Why this plan and not a better one; and where nothing fits, the nearest miss and what would fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil
from typing import Any, TypeAlias

from memserve.engines import installed
from memserve.engines.rules import version_key
from memserve.engines.rules.judge import about_dtype, offered, subject
from memserve.hardware.machine import GIB, Machine
from memserve.model.spec import ModelSpec, told_away
from memserve.plan.candidate import BELOW_4_BIT, UNTIMED, WEIGHTS, Candidate, loaded, steps, weight_loss
from memserve.plan.plan import Plan
from memserve.plan.query import Query
from memserve.plan.search import pricing
from memserve.plan.search.choice import Rank, first
from memserve.plan.search.judging import ABOUT, conceded
from memserve.plan.search.offers import late, unoffered
from memserve.speed.result import Range


def reasons_for(plan: Plan, rank: Rank, found: Sequence[Candidate]) -> tuple[str, ...]:
    """Sentences for a reader, the weightiest first; `found` is all that was considered."""
    rejected = [one for one in found if not one.fits]
    said = (
        *_assumed(plan), *_in_time(plan, rank), *_why_not_better(plan, rank, found), *_dtype(plan, rejected),
        *_release(plan, rejected), *_checkpoint(plan), *_concessions(plan),
        *_context(plan, rank.query), *(plan.launch.notes if plan.launch else ()),
    )  # fmt: skip
    return tuple(dict.fromkeys(said))


def _assumed(plan: Plan) -> Iterator[str]:
    yield from (*plan.model.notes, *plan.machine.notes)


def _in_time(plan: Plan, rank: Rank) -> Iterator[str]:
    """How surely an answer keeps to the time that it may take."""
    if plan.fits and rank.query.answer_ms:
        held = loaded(rank.model, plan.checkpoint)
        told = pricing.speed(held, rank.machine, plan, plan.concurrency, rank.query.job)
        unsure = f", and {UNTIMED}" if told.at_most else ""
        for name, wanted in rank.query.answer_ms.items():
            spread: Range = getattr(told, f"{name}_ms")
            yield f"--{name} {wanted:g}: {spread.likely:.4g} ms likely, {spread.high:.4g} at worst{unsure}"


def _why_not_better(plan: Plan, rank: Rank, found: Sequence[Candidate]) -> Iterator[str]:
    """For each less lossy quantization of the same release: what forbids it, or which preference decided."""
    loss = weight_loss(plan.checkpoint)
    better = (one.quantization for one in found if _same_release(one, plan)
              and weight_loss(one.checkpoint) < loss and one.quantization != plan.quantization)  # fmt: skip
    for quantization in dict.fromkeys(better):
        every = [one for one in found if one.quantization == quantization]
        why = _why_not(plan, rank, every)
        if why:
            yield f"not {'16 bit' if quantization == 'none' else quantization}: {why}"


def _why_not(plan: Plan, rank: Rank, every: Sequence[Candidate]) -> str:
    """Of one quantization: nothing of it fits, or something does and ranks below; empty where unsure."""
    if not any(one.fits for one in every):
        every = [*every, *unoffered(rank.model, rank.machine, rank.query, every[0].quantization)]
    fitting = [one for one in every if one.fits]
    if fitting:
        return f"fits, but ranks below: {rank.because(min(fitting, key=rank), plan)}"
    refused = all(one.outcome == "refused" for one in every)
    fewer = min(steps(weight_loss(one.checkpoint), "auto") for one in every)
    if not refused and fewer >= steps(weight_loss(plan.checkpoint), "auto"):
        return ""  # of equally many bits, with a KV cache that was not tried
    told = max((one for one in every if _same_release(one, plan)), key=lambda one: _likeness(one, plan))
    layout = told.deployment.layout
    return told.reason + ("" if _likeness(told, plan)[1] else f" (tp {layout.tensor} pp {layout.pipeline})")


def _same_release(one: Candidate, plan: Plan) -> bool:
    return (one.backend, one.engine_version) == (plan.backend, plan.engine_version)


def _dtype(plan: Plan, rejected: Sequence[Candidate]) -> Iterator[str]:
    """What the release refuses to compute in on this card."""
    for candidate in rejected:
        other = candidate.dtype != plan.dtype and candidate.rule.startswith(("bf16", "fp16"))
        if other and _same_release(candidate, plan):
            yield f"computes in {plan.dtype}: {candidate.reason}"


def _likeness(candidate: Candidate, plan: Plan) -> tuple[bool, bool, bool, int]:
    """The refusal that tells most is that of the plan's own dtype, layout and cache, else of the widest."""
    layout, chosen = candidate.deployment.layout, plan.deployment.layout
    alike = (layout.tensor, layout.pipeline) == (chosen.tensor, chosen.pipeline)
    cards = layout.tensor * layout.pipeline
    return candidate.dtype == plan.dtype, alike, candidate.kv_dtype == plan.kv_dtype, cards


def _release(plan: Plan, rejected: Sequence[Candidate]) -> Iterator[str]:
    newest = str(offered(installed.named(plan.backend).rules)[0]["version"])
    if version_key(plan.engine_version) >= version_key(newest):
        if plan.engine_version != newest:
            yield f"{plan.backend} {plan.engine_version} is newer than any known here: judged as {newest}"
        return
    for candidate in rejected:
        if candidate.backend == plan.backend and candidate.engine_version == newest:
            yield candidate.reason
            return


def _checkpoint(plan: Plan) -> Iterator[str]:
    checkpoint = plan.checkpoint
    if checkpoint.make:
        yield f"no {checkpoint.quantization} checkpoint of {plan.model.id} is known: {checkpoint.make}"
    elif checkpoint.online:
        yield f"the engine quantizes {checkpoint.id} to {checkpoint.quantization} while loading it"
    elif checkpoint.id != plan.model.id:
        yield f"checkpoint {checkpoint.id} ({checkpoint.source})"


def _concessions(plan: Plan) -> Iterator[str]:
    deployment = plan.deployment
    for concession in conceded(installed.named(plan.backend).rules, plan.model, plan.machine):
        words = {name: value for name, value in concession.items() if name not in ABOUT}
        if words and all(_same(getattr(deployment, name), value) for name, value in words.items()):
            yield f"to fit: {concession['note']}"
            return


def _same(held: object, asked: object) -> bool:
    return held == asked or (isinstance(held, int) and isinstance(asked, int) and held >= asked > 1)


def _context(plan: Plan, query: Query) -> Iterator[str]:
    largest = plan.largest_context
    if largest and plan.fits:
        chosen = "" if query.context else " (the default: the smaller of 8192 and the model's maximum)"
        chosen = " (the workload's longest request)" if query.job and not query.context else chosen
        yield f"planned for {plan.context} tokens{chosen}; the largest context that fits is {largest}"
    taken, there = plan.deployment.layout.cards, plan.machine.cards
    if plan.fits and taken < there:
        yield f"takes {taken} of {there} cards: the others are free for another copy"


Change: TypeAlias = tuple[str, ModelSpec, Machine, Query]

MOST_CARDS = 64
STEP = 256
"""Tokens that a shorter context is rounded to."""
REQUESTED = frozenset({"stored-quantization", "no-checkpoint"})
"""The planner's own refusals of what was asked for."""
REFUSED_AT = {"request": 1.0, "model": 2.0, "card": 3.0, "vendor": 4.0}
"""Another maker's engine is the least telling of all refusals."""


def nearest(rejected: Sequence[Candidate]) -> Candidate | None:
    """The candidate that came furthest: memory before layout before card; then the smallest shortfall.

    A layout's refusal tells nothing where every other layout is refused for its weights or its card; nor
    does a dtype's where another passes and the same weights are refused for something else.
    """
    computed = {_alike(one) for one in rejected if not _of_dtype(one)}
    rejected = [one for one in rejected if not (_of_dtype(one) and _alike(one) in computed)]
    held = {_alike(one) for one in rejected if one.footprint is not None or one.remote}
    rules = dict.fromkeys((one.backend, one.rule) for one in rejected if _alike(one) not in held)
    asked = {rule for rule in rules if _refused_at(*rule) == REFUSED_AT["request"]}
    shut = {_alike(one) for one in rejected if (one.backend, one.rule) not in asked} - held
    told = (one for one in rejected if _alike(one) not in shut or (one.backend, one.rule) not in asked)
    return min(told, key=_distance, default=None)


def _of_dtype(one: Candidate) -> bool:
    return not one.remote and about_dtype(installed.named(one.backend).rules, one.rule)


def _alike(one: Candidate) -> tuple[str, str, str]:
    return one.backend, one.engine_version, one.quantization


def measured(candidate: Candidate, model: ModelSpec, machine: Machine) -> Candidate:
    """The nearest miss with the memory that it would take, where a rule spoke before memory was asked."""
    if candidate.remote or candidate.footprint is not None:
        return candidate
    memory = installed.named(candidate.backend).memory
    footprint = memory.account(loaded(model, candidate.checkpoint), machine, candidate.deployment)
    return replace(candidate, verdict=replace(candidate.verdict, footprint=footprint))


def _distance(candidate: Candidate) -> tuple[float, ...]:
    if candidate.verdict.missed:
        return (-1.0, candidate.verdict.missed)
    if candidate.remote:
        return (REFUSED_AT["model"],)
    footprint = candidate.footprint
    engine = installed.named(candidate.backend).rules.get("rank", 9)
    if footprint is None:
        return (_refused_at(candidate.backend, candidate.rule), engine, weight_loss(candidate.checkpoint))
    over = (footprint.weights + footprint.activation + footprint.non_torch) / max(1, footprint.usable)
    return (0.0, over - footprint.max_concurrency, engine)


def _refused_at(backend: str, rule: str) -> float:
    """A request, then what the weights or the dtype need, then the release and its card, then the maker."""
    return REFUSED_AT["request" if rule in REQUESTED else subject(installed.named(backend).rules, rule)]


def remedies(model: ModelSpec, machine: Machine, query: Query, closest: Candidate) -> Iterator[str]:
    """Changes of the call that were tried and hold all else that was asked."""
    if not closest.remote:
        yield from _offloaded(model, machine, query)
    yield from (_slower if closest.verdict.missed else _less)(model, machine, query, closest)
    if closest.rule == "context" and query.job and not closest.remote:
        yield (
            f"memserve models --gpus {spelled(machine)} --context {closest.context} lists models made for so"
            f" much; or send at most {model.max_context} tokens: fewer sessions, or the best hits of a search"
        )
    for words, spec, place, asked in _changes(model, machine, query, closest):
        best = first(spec, place, asked)
        if best is not None:
            yield words.format(_named(best))
            break
    for level in WEIGHTS if query.quantization is None and not closest.remote else ():
        if steps(WEIGHTS[level], "auto") >= BELOW_4_BIT:
            best = first(model, machine, replace(query, quantization=level))
            if best is not None:
                yield f"--quantization {level}: {_named(best)} fits, far behind 4 bits"
                return


def instead(model: ModelSpec, machine: Machine, query: Query) -> Iterator[str]:
    """For a command that does not do: what the planner takes on these cards, or on the fewest more."""
    times = "".join(f" --{name} {ms:g}" for name, ms in query.answer_ms.items())
    more = f" --concurrency {query.concurrency}" * (query.concurrency > 1) + times
    for place in (machine, *larger(machine)):
        best = first(model, place, query)
        if best is not None:
            words = f"memserve plan {model.id} --gpus {spelled(place)} --context {query.context}{more}"
            yield f"{words}: {_named(best)} fits"
            return


def spelled(machine: Machine) -> str:
    """A machine as `--gpus` reads it."""
    ram = machine.host_memory // GIB if machine.host_memory and machine.origin == "named" else 0
    cards = f"{machine.nodes}x" * (machine.nodes > 1) + f"{machine.cards_per_node}x{machine.card.name}"
    return cards + f"+{ram}GB" * bool(ram and machine.card.vendor != "cpu")


def _offloaded(model: ModelSpec, machine: Machine, query: Query) -> Iterator[str]:
    """Layers on the host, where an engine can do that, and how slow it is."""
    vendor, asked = machine.card.vendor, installed.asked(query.backend, query.engine_version)
    rules = ((name, installed.named(name).rules or {"serves": {}}) for name in asked)
    able = (name for name, its in rules if vendor in its["serves"].get("host_layers", ()))
    for name in () if query.offload else able:
        best = first(model, machine, replace(query, backend=name, offload=True))
        if best is not None and best.deployment.host_layers:
            rate = pricing.speed(loaded(model, best.checkpoint), machine, best, query.concurrency, query.job)
            away = best.deployment.host_layers
            pace = float(f"{rate.output_tokens_per_s.likely:.2g}")
            yield f"--offload: {_named(best)} fits with {told_away(model, away)}, about {pace:g} tokens/s"


def _slower(model: ModelSpec, machine: Machine, query: Query, closest: Candidate) -> Iterator[str]:
    """The least time that an answer takes, or fewer requests at once."""
    if closest.remote:
        return
    changed: dict[str, Any] = {name: ceil(ms) for name, ms in late(closest, model, machine, query).items()}
    best = first(model, machine, replace(query, **changed))
    if best is not None:
        words = " ".join(f"--{name} {ms}" for name, ms in changed.items())
        yield f"{words}: {_named(best)} answers so fast"
    for share in (2, 4, query.concurrency):
        fewer = query.concurrency // share
        best = first(model, machine, replace(query, concurrency=fewer)) if fewer else None
        if best is not None and fewer < query.concurrency:
            yield f"--concurrency {fewer}: {_named(best)} answers in time"
            return


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
        best = first(model, machine, replace(same, context=tokens)) if 0 < tokens < closest.context else None
        if best is not None:
            yield f"--context {tokens}: {_named(best)} holds that many tokens"
            break
    best = (
        first(model, machine, replace(same, concurrency=int(held))) if 1 <= held < query.concurrency else None
    )
    if best is not None:
        yield f"--concurrency {int(held)}: {_named(best)} holds that many requests"


def _changes(model: ModelSpec, machine: Machine, query: Query, closest: Candidate) -> Iterator[Change]:
    """One change at a time, in words and as the call that it makes."""
    if closest.rule == "context" and query.job is None:
        words = f"--context {model.max_context}: {{}} fits, and the model was made for no more"
        yield words, model, machine, replace(query, context=model.max_context)
    if closest.rule == "on-request":
        asked = replace(query, backend=closest.backend)
        yield f"--backend {closest.backend}: {{}} fits", model, machine, asked
    for name, freed in _freed(query).items():
        if freed != query and name == "--kv-dtype":
            best = first(model, machine, freed)
            if best is not None:
                yield f"--kv-dtype {best.kv_dtype}: {{}} fits", model, machine, freed
        elif name == "--backend" and freed != query and query.job and query.job.at_provider:
            also = "".join(f", --{one}" for one in query.job.at_provider)
            plain = replace(query.job, rpm=None, tpm=None, batch=False)
            yield f"leave --backend{also} open: {{}} fits", model, machine, replace(freed, job=plain)
        elif freed != query:
            yield f"leave {name} open: {{}} fits", model, machine, freed
    base = _unquantized(model)
    if base is not None:
        yield f"plan {base.id} instead: {{}} fits", base, machine, query
    for more in larger(machine):
        yield f"--gpus {spelled(more)}: {{}} fits", model, more, query


def larger(machine: Machine) -> Iterator[Machine]:
    """Twice the cards and so on: in one node while there are such nodes, then in more of them."""
    machine = replace(machine, free_memory=None)
    while machine.cards * 2 <= MOST_CARDS:
        if machine.nodes == 1 and machine.cards_per_node * 2 <= machine.card.per_node:
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
        "--ttft": replace(query, ttft=None),
        "--tpot": replace(query, tpot=None),
        "--ttft and --tpot": replace(query, ttft=None, tpot=None),
        "--engine-version": replace(query, engine_version=None),
        "--backend": replace(query, backend=None, engine_version=None),
        "the layout": replace(query, tensor_parallel=None, pipeline_parallel=None, data_parallel=None),
    }


def _named(candidate: Candidate) -> str:
    if candidate.remote:
        return candidate.backend
    layout = candidate.deployment.layout
    return (
        f"{candidate.backend} {candidate.engine_version} {candidate.quantization}"
        f" tp {layout.tensor} pp {layout.pipeline}"
    )
