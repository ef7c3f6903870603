"""`predict`: seconds per token of a model on a machine, without running it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.engines.speed import EngineSpeed
from memserve.hardware.machine import Card, Machine
from memserve.model.spec import ModelSpec
from memserve.speed import inputs
from memserve.speed.result import Speed
from memserve.speed.roofline import constants, engines, formats, layout, queueing, ranges, shape
from memserve.speed.roofline.situation import Situation
from memserve.speed.roofline.step import Setup

if TYPE_CHECKING:
    from os import PathLike

PCIE = 12e9
"""Bytes per second one way between cards without a link of their own and without a stated PCIe rate."""
HOST_SHARE = 0.4
"""What of PCIe's rate two cards get from each other through the host."""
NETWORK = 12.5e9
"""100 Gbit/s: what is assumed between nodes where the machine does not say."""


def predict(model: str | PathLike[str] | ModelSpec, gpus: str | Machine, *, backend: str,
            engine_version: str | None = None, quantization: str | None = None,
            tensor_parallel: int | None = None, input_tokens: float, output_tokens: float,
            concurrency: float | None = None, **options: Any) -> Speed:  # fmt: skip
    """The speed of a model under a steady load of equal requests.

    `input_tokens` are a request's new tokens. `concurrency` requests are always in flight; None asks for
    the most that the machine can serve. `options` are those of `situate`: pipeline_parallel,
    data_parallel, prefix_tokens (already in the cache), kv_dtype, max_sequences.
    """
    load = queueing.Load(input_tokens, output_tokens, options.pop("prefix_tokens", 0.0))
    spec, machine = _spec(model), _machine(gpus)
    return judge(
        situate(
            shape.of(spec), machine, backend, load, concurrency, engine_version=engine_version,
            quantization=quantization, tensor_parallel=tensor_parallel, **options,
        )
    )  # fmt: skip


def situate(model: shape.Shape, machine: Machine, backend: str, load: queueing.Load,
            concurrency: float | None = None, *, engine_version: str | None = None,
            quantization: str | None = None, tensor_parallel: int | None = None,
            pipeline_parallel: int | None = None, data_parallel: int | None = None,
            kv_dtype: str | None = None, max_sequences: int | None = None) -> Situation:  # fmt: skip
    """Settle what the caller left open: the layout, the formats, the scheduler's limits."""
    _counts(load, concurrency)
    _choices(
        {"backend": backend, "engine_version": engine_version, "quantization": quantization,
         "kv_dtype": kv_dtype},
        {"tensor_parallel": tensor_parallel, "pipeline_parallel": pipeline_parallel,
         "data_parallel": data_parallel, "max_sequences": max_sequences},
    )  # fmt: skip
    card = machine.card
    engine = engines.used(backend, card)
    facts = engines.facts(engine)
    form = formats.of(quantization, model, card)
    spread = layout.spread(
        model, machine, form, facts, tensor_parallel, pipeline_parallel, data_parallel, concurrency is None
    )
    limits = engines.limits(engine, engine_version, card)
    generation = engines.generation(engine, engine_version)
    setup = Setup(
        shape=model, format=form, card=card,
        constants=constants.of(engine, constants.family(card), generation), tensor=spread.tensor,
        pipeline=spread.pipeline, kv_bytes=_kv_bytes(kv_dtype, facts, form), link=_link(machine, spread),
        sharing=spread.experts,
    )  # fmt: skip
    limits = limits._replace(sequences=max_sequences) if max_sequences else limits
    return Situation(
        engine, engines.kind(backend) is not None, generation, setup, spread, load, limits, concurrency
    )


def judge(situation: Situation) -> Speed:
    """Time a situation and put the ranges around it."""
    timing = queueing.time(situation.setup, situation.load, situation.limits, situation.each)
    rate = timing.requests_per_s * situation.load.output_tokens * situation.spread.replicas
    band = ranges.band(situation, timing)
    return Speed(
        ttft_ms=band.ttft(timing.ttft * 1e3), tpot_ms=band.tpot(timing.tpot * 1e3),
        output_tokens_per_s=band.throughput(rate), at_most=band.at_most, batch=timing.batch,
        bound=timing.bound, notes=situation.spread.notes,
    )  # fmt: skip


def _counts(load: queueing.Load, concurrency: float | None) -> None:
    inputs.number("input_tokens", load.input_tokens, most=inputs.MOST_TOKENS)
    inputs.number("prefix_tokens", load.prefix_tokens, most=inputs.MOST_TOKENS)
    inputs.number("output_tokens", load.output_tokens, above=True, most=inputs.MOST_TOKENS)
    if concurrency is not None:
        inputs.number("concurrency", concurrency, above=True, most=inputs.MOST_TOKENS)


def _choices(words: dict[str, object], degrees: dict[str, object]) -> None:
    for name, value in words.items():
        inputs.word(name, value, needed=name == "backend")
    for name, value in degrees.items():
        inputs.degree(name, value)


def _spec(model: Any) -> ModelSpec:
    if hasattr(model, "blocks"):
        return model  # type: ignore[no-any-return]
    from memserve.model import load

    return load(model)


def _machine(gpus: Any) -> Machine:
    if hasattr(gpus, "card"):
        return gpus  # type: ignore[no-any-return]
    inputs.word("gpus", gpus, needed=True)
    from memserve.hardware import parse

    return parse(gpus)


def _kv_bytes(kv_dtype: str | None, facts: EngineSpeed, form: formats.Format) -> float:
    """Some engines' fp8 and fp4 checkpoints carry an 8-bit cache; elsewhere it is 16-bit unless asked."""
    if kv_dtype in {None, "auto"}:
        return 1.0 if form.dtype in facts.get("small_cache_with", ()) else 2.0
    word = str(kv_dtype).lower()
    if "4" in word and "bf" not in word and "16" not in word:
        return 0.5 if "fp4" in word or "int4" in word else 1.0
    return 1.0 if "8" in word else 4.0 if "32" in word else 2.0


def _link(machine: Machine, spread: layout.Spread) -> float:
    """Bytes per second one way over which the tensor group talks."""
    if spread.across and machine.nodes > 1:
        return machine.network.bytes_per_second if machine.network else NETWORK
    return card_link(machine.card)


def card_link(card: Card) -> float:
    """Bytes per second one way between two cards of a node."""
    if card.link:
        return card.link.bytes_per_second
    return card.host_link.bytes_per_second * HOST_SHARE if card.host_link else PCIE
