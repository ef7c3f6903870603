"""The speed model's constants: per engine class, corrected per card class, as data with their source."""

from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

from memserve import files
from memserve.hardware.machine import Card
from memserve.speed.roofline import engines


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
    queue: float = 0.5
    """TTFT: how many of the requests in flight stand before a new one with their prompts."""
    crowd: float = 1.3
    """How much longer prompts take where hundreds of requests arrive at once and share one host."""
    short: float = 4.0
    """How much more a stall weighs in the mean time per token of unequal answers than of equal ones: the mean
    of 1 / length times the mean length."""
    tail: float = 6.0
    """How much longer the longest answer of such a test is than the mean: few are left at its end."""
    reserves: bool = False
    """A request waits until the cache has space for its whole answer; others take blocks as they write."""
    mixes: bool = False
    """One step reads prompts and decodes, so both use one reading of the weights."""
    overlaps: bool = False
    """The host's launches run beside the kernels (no graphs), so the slower of both counts."""


@cache
def data() -> dict[str, Any]:
    """What all engines share: data/constants.json."""
    return dict(files.table(__file__, "../data/constants.json"))


@cache
def of(engine: str, family: str, generation: str | None = None) -> Constants:
    """The constants of an engine class on a card class; an older generation has its own factors."""
    known = {field.name for field in fields(Constants)}
    facts = engines.facts(engine)
    chosen: dict[str, Any] = {**data()["constants"], **facts.get("constants", {})}
    base = Constants(**{name: value for name, value in chosen.items() if name in known})
    older = (row["factors"] for row in facts.get("generations", ()) if row["name"] == generation)
    for factors in (data()["cards"].get(family, {}), next(older, {})):
        base = replace(base, **{name: getattr(base, name) * factor for name, factor in factors.items()})
    return base


def family(card: Card) -> str:
    """A card's class: cards of one class share their kernels."""
    if card.vendor != "nvidia" or card.sm is None:
        return card.vendor
    names = {61: "pascal", 70: "volta", 75: "turing", 80: "ampere", 86: "geforce", 89: "ada", 90: "hopper"}
    return names.get(card.sm, "old" if card.sm < 70 else "blackwell" if card.sm < 120 else "geforce50")
