"""How an engine spends its time, and how the work is spread over the cards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from math import isqrt
from typing import Any, NamedTuple, cast

from memserve import files, registry
from memserve.engines import installed
from memserve.engines.speed import EngineSpeed, Generation, LimitRow, SamplerRow
from memserve.hardware.machine import GIB, Card, Machine
from memserve.speed.roofline.shape import Format, Shape

UNKNOWN = "default"
"""The class of an engine that nobody timed."""
DEFAULT = (256, 2048)
"""Sequences and prompt tokens in a step, where an engine does not say."""


class SchedulerLimits(NamedTuple):
    """What a scheduler allows at once."""

    sequences: int
    tokens: int
    """Prompt tokens in one step."""
    sampler_bytes: float = 0.0
    """Memory set aside for sampling, per sequence and vocabulary entry."""


def facts(engine: str) -> EngineSpeed:
    """What is known of a class of engines."""
    return classes().get(engine, {})


@registry.remembered
def kind(name: str) -> str | None:
    """The class of an engine, or None for one that nobody timed; tables add versions to the name."""
    word = name.strip().lower()
    names = {known: name for name, row in classes().items() for known in (name, *row.get("names", ()))}
    if word in names or word in registry.names():
        return names.get(word)
    inside = [known for known in names if len(known) > 3 and known in word]
    return names[min(inside, key=lambda known: (word.index(known), -len(known)))] if inside else None


def most_measured() -> str:
    """The backend whose figures rest on the most published measurements."""
    timed = installed.speeds()
    return max(timed, key=lambda name: timed[name].get("rows", 0))


def used(backend: str, card: Card) -> str:
    """The class whose figures count on a card: on some makers' cards all compute as the most measured."""
    rows = {name: row.get("rows", 0) for name, row in classes().items()
            if row.get("every_engine_on") == card.vendor}  # fmt: skip
    own = kind(backend)
    if own and (own in rows or not rows):
        return own
    return max(rows, key=lambda name: rows[name], default=UNKNOWN)


@registry.remembered
def classes() -> dict[str, EngineSpeed]:
    """Every class of engines: those of backends, and those that are known from published tables alone."""
    published = cast("dict[str, EngineSpeed]", files.table(__file__, "../data/published.json")["engines"])
    return {**published, **installed.speeds()}


@cache
def _release(version: str | None) -> tuple[int, ...] | None:
    found = re.match(r"v?(\d+)\.(\d+)", version or "")
    return (int(found.group(1)), int(found.group(2))) if found else None


def generation(engine: str, version: str | None) -> str | None:
    """The name of an older generation of an engine whose constants differ, or None for the current one."""
    rows = facts(engine).get("generations", ())
    return next((row["name"] for row in rows if _applies(row, version)), None)


def limits(engine: str, version: str | None, card: Card) -> SchedulerLimits:
    """The scheduler's defaults of an engine class and version on a card."""
    known = facts(engine)
    for row in known.get("limits", ()):
        if _applies(row, version) and _takes(row, card):
            return SchedulerLimits(
                row["sequences"], row["tokens"], _sampler(known.get("sampler", ()), version)
            )
    return SchedulerLimits(*DEFAULT)


def _applies(row: LimitRow | SamplerRow | Generation, version: str | None) -> bool:
    before, release = row.get("before"), _release(version)
    return not before or (release is not None and release < tuple(before))


def _takes(row: LimitRow, card: Card) -> bool:
    other = row.get("not_card")
    return card.memory >= row.get("memory_gib", 0) * GIB and not (
        other and card.name.upper().startswith(other)
    )


def _sampler(rows: Sequence[SamplerRow], version: str | None) -> float:
    return next((row["bytes"] for row in rows if _applies(row, version)), 0.0)


@dataclass(frozen=True)
class Constants:
    """What of the hardware's peak an engine reaches, and what each step costs besides."""

    weights: float = 0.8
    """Share of the memory bandwidth while weights are read."""
    cache: float = 0.7
    """Share of the memory bandwidth while keys and values are read."""
    gemm: float = 0.6
    """Share of the arithmetic peak in a decoding step."""
    prefill: float = 0.5
    """Share of the arithmetic peak while prompts are read."""
    attention: float = 0.35
    """Share of the 16-bit peak in a prompt's attention."""
    experts: float = 0.6
    """Routed experts' share of that: rows spread thinly and unevenly over experts."""
    evenness: float = 1.0
    """How evenly tokens spread over experts: the smaller, the fewer experts many tokens call for."""
    unpack: float = 0.9
    """Weight-only formats: share of the bandwidth that is left while unpacking."""
    unpack_gemm: float = 0.7
    """Weight-only formats: share of the arithmetic that is left."""
    link: float = 0.6
    """Share of the link's bandwidth that an all-reduce reaches."""
    layer_s: float = 30e-6
    quantized_layer_s: float = 0.0
    expert_s: float = 20e-6
    latent_s: float = 20e-6
    """Further kernels of a layer with latent attention."""
    prompt_s: float = 50e-6
    """Per layer of a step that carries prompts: it runs outside the CUDA graph."""
    expert_prompt_s: float = 100e-6
    """Per expert layer of such a step: routing, sorting and gathering rows."""
    reduce_s: float = 6e-6
    step_s: float = 500e-6
    sequence_s: float = 5e-6
    """Scheduling, sampling and detokenizing of one sequence in one step."""
    overlap: float = 0.1
    """A step that carries both prompts and decoding: the share of the shorter part that the longer hides."""
    first_s: float = 0.02
    """From the arrival of a request to its first step and from its last kernel to the wire."""
    polls: float = 1.0
    """TTFT: decoding steps that pass before the scheduler sees a new request."""
    reads: float = 0.9
    """TTFT: a prompt's own time, of what it costs others."""
    first_layer_s: float = 0.2e-3
    """TTFT: the host's launches per layer of the step that gives the first token."""
    first_expert_s: float = 0.5e-3
    first_latent_s: float = 1e-3
    queue: float = 0.05
    """TTFT: how many of those in flight stand before a new request: tests keep N until 10 N are answered."""
    stall: float = 1.0
    """TPOT: what a token waits of the prompts that are read while its request decodes."""
    crowd: float = 1.3
    """How much longer prompts take where hundreds of requests arrive at once and share one host."""
    short: float = 4.0
    """How much more a stall weighs in the mean time per token of unequal answers than of equal ones: the mean
    of 1 / length times the mean length."""
    unequal: float = 1.8
    """TTFT of such a test: long answers hold their places longer than the mean."""
    tail: float = 6.0
    """How much longer the longest answer of such a test is than the mean: few are left at its end."""
    slots: float = 1e12
    """Sequences that decode at once where all prompts are read first."""
    reserves: bool = False
    """A request waits until the cache has space for its whole answer; others take blocks as they write."""
    mixes: bool = False
    """One step reads prompts and decodes, so both use one reading of the weights."""
    overlaps: bool = False
    """The host's launches run beside the kernels (no graphs), so the slower of both counts."""


@cache
def shared() -> dict[str, Any]:
    """What all engines share: data/constants.json."""
    return dict(files.table(__file__, "../data/constants.json"))


@cache
def constants(engine: str, family: str, generation: str | None = None) -> Constants:
    """The constants of an engine class on a card class; an older generation has its own factors."""
    known = {field.name for field in fields(Constants)}
    known_of = facts(engine)
    chosen: dict[str, Any] = {**shared()["constants"], **known_of.get("constants", {})}
    base = Constants(**{name: value for name, value in chosen.items() if name in known})
    older = (row["factors"] for row in known_of.get("generations", ()) if row["name"] == generation)
    for factors in (shared()["cards"].get(family, {}), next(older, {})):
        base = replace(base, **{name: getattr(base, name) * factor for name, factor in factors.items()})
    return base


def family(card: Card) -> str:
    """A card's class: cards of one class share their kernels."""
    if card.vendor != "nvidia" or card.sm is None:
        return card.vendor
    names = {61: "pascal", 70: "volta", 75: "turing", 80: "ampere", 86: "geforce", 89: "ada", 90: "hopper"}
    return names.get(card.sm, "old" if card.sm < 70 else "blackwell" if card.sm < 120 else "geforce50")


BOARD = 8
"""Cards that one board or host links directly, where the card's own data say nothing else."""
DOMAINS = {"GB200": 72, "GB300": 72, "A3": 16}
WIDE = 16
"""Tensor ranks that engines still give one copy of the attention."""
FILL = 0.9


class Spread(NamedTuple):
    """tensor x pipeline cards hold one replica; `experts` replicas share one set of experts."""

    tensor: int
    pipeline: int
    replicas: int
    experts: int = 1
    across: bool = False
    """The tensor group spans boards."""
    notes: tuple[str, ...] = ()


def spread(shape: Shape, machine: Machine, form: Format, engine: EngineSpeed, tensor: int | None,
           pipeline: int | None = None, data: int | None = None, most: bool = False) -> Spread:  # fmt: skip
    """The layout that engines take by default, and what can be read into a layout that is named.

    `most`: the layout is left open by somebody who asks for the most that the machine can serve.
    """
    if pipeline or data:
        return _named(machine, tensor, pipeline or 1, data)
    if tensor is None:
        shared = _sharing(shape, machine, form, engine) if most else None
        if shared:
            return shared
        return _default(shape, machine, form, engine)
    cards = machine.cards
    domain = DOMAINS.get(machine.card.name, BOARD)
    if shape.experts and machine.nodes == 1 and min(tensor, cards) > domain:
        return _product(tensor, cards)
    tensor = max(1, min(tensor, cards))
    if shape.experts and (tensor > WIDE or (tensor > BOARD and _heads(shape) % tensor)):
        return _wide(tensor, cards)
    if engine.get("layerwise"):
        return Spread(tensor, max(1, cards // tensor), 1)
    return _filled(shape, machine, form, tensor)


def _named(machine: Machine, tensor: int | None, pipeline: int, data: int | None) -> Spread:
    """Exactly what the caller says; a missing degree takes the cards that are left."""
    if tensor is None:
        tensor = max(1, machine.cards // (pipeline * (data or 1)))
    replicas = data or max(1, machine.cards // (tensor * pipeline))
    return Spread(max(1, tensor), max(1, pipeline), max(1, replicas), across=tensor > machine.cards_per_node)


def _filled(shape: Shape, machine: Machine, form: Format, tensor: int) -> Spread:
    """A pipeline over the other cards if the weights need them, replicas over what is left."""
    left = max(1, machine.cards // tensor)
    pipeline = 1
    while pipeline < left and not fits(shape, machine, form, tensor * pipeline):
        pipeline *= 2
    pipeline = min(pipeline, left)
    across = tensor > min(DOMAINS.get(machine.card.name, BOARD), machine.cards_per_node)
    if fits(shape, machine, form, tensor * pipeline):
        return Spread(tensor, pipeline, max(1, left // pipeline), across=across)
    return _too_large(shape, machine, form, Spread(tensor, pipeline, 1, across=across))


def fits(shape: Shape, machine: Machine, form: Format, cards: int) -> bool:
    """Whether the weights alone go into so many cards."""
    return stored_bytes(shape, form) / cards < FILL * machine.card.memory


def stored_bytes(shape: Shape, form: Format) -> float:
    """Bytes of all weights."""
    quantized = (shape.mixing + shape.dense) * form.others + shape.expert * shape.experts * form.bits
    return (quantized + (shape.plain + shape.resident) * max(16.0, form.bits)) / 8


def _default(shape: Shape, machine: Machine, form: Format, engine: EngineSpeed) -> Spread:
    """All cards of a node in one tensor group, as far as the heads divide; further nodes in a pipeline."""
    if engine.get("layerwise"):
        return Spread(1, machine.cards, 1)
    tensor = 1
    while tensor * 2 <= machine.cards_per_node and _heads(shape) % (tensor * 2) == 0:
        tensor *= 2
    return spread(shape, machine, form, engine, tensor)


def _sharing(shape: Shape, machine: Machine, form: Format, engine: EngineSpeed) -> Spread | None:
    """Data-parallel attention over shared experts: no tensor rank divides a latent, so it holds most."""
    cards = machine.cards_per_node
    latent = all(part.latent for part in shape.attentions) and shape.experts
    if cards == 1 or not latent or not engine.get("shares_experts"):
        return None
    own = stored_bytes(shape, form) - shape.expert * shape.experts * form.bits / 8
    held = own + shape.expert * shape.experts * form.bits / 8 / cards
    if held > FILL * FILL * machine.card.memory:
        return None
    note = f"read as {cards} data-parallel ranks that share the experts, as for the most requests"
    return Spread(1, 1, machine.cards, cards, notes=(note,))


def _heads(shape: Shape) -> int:
    return max((part.heads for part in shape.attentions), default=1) or 1


def _product(tensor: int, cards: int) -> Spread:
    """More tensor ranks than any board has: published tables write tensor x expert ranks of one group so."""
    side = max(1, isqrt(min(tensor, cards)))
    note = f"tensor {tensor} on one host is read as {side} tensor x {side} expert ranks over {side} cards"
    return Spread(side, 1, 1, notes=(note,))


def _wide(tensor: int, cards: int) -> Spread:
    """Wider than a board: engines keep attention whole per card and spread only the experts."""
    note = f"tensor {tensor} is read as {tensor} data-parallel ranks that share the experts"
    return Spread(1, 1, max(1, cards // tensor) * tensor, tensor, notes=(note,))


def _too_large(shape: Shape, machine: Machine, form: Format, found: Spread) -> Spread:
    """Weights beyond the named cards: read as one rank of a group that shares experts, if there are any."""
    if not shape.experts:
        return Spread(
            found.tensor, found.pipeline, 1, across=found.across,
            notes=("the weights do not fit these cards",),
        )  # fmt: skip
    cards = found.tensor * found.pipeline
    group = 2
    while group < 64 and not fits(shape, machine, form, cards * group):
        group *= 2
    note = f"the weights do not fit: read as one of {group} data-parallel ranks that share the experts"
    return Spread(found.tensor, found.pipeline, 1, group, found.across, (note,))
