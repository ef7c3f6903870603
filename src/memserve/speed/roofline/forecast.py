"""What is to be timed: a model, its cards and its load, with nothing left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from memserve import files
from memserve.engines.speed import EngineSpeed
from memserve.hardware.machine import Card, Machine
from memserve.model.spec import ModelSpec, parted
from memserve.speed import result
from memserve.speed.result import Range, Speed
from memserve.speed.roofline import layout, queueing, shape, step
from memserve.speed.roofline.queueing import Timing
from memserve.speed.roofline.step import Setup


class Situation(NamedTuple):
    """A model, its cards and its load, made ready to be timed."""

    engine: str
    known: bool
    generation: str | None
    """An older generation of the engine, or None."""
    setup: Setup
    spread: layout.Spread
    load: queueing.Load
    limits: layout.SchedulerLimits
    concurrency: float | None
    """Requests in flight on the whole machine; None: as many as it takes."""
    measured: Learnt | None = None
    """What this very model taught on such cards."""

    @property
    def each(self) -> float | None:
        """Requests in flight on one replica that has any."""
        return None if self.concurrency is None else self.concurrency / self.busy

    @property
    def busy(self) -> float:
        """Replicas that have a request: no more than there are requests."""
        replicas = self.spread.replicas
        return replicas if self.concurrency is None else min(replicas, max(1.0, self.concurrency))


FIGURES = ("ttft", "tpot", "throughput")
Ranges: TypeAlias = "Mapping[str, Sequence[float]]"
"""Figure, or figure.load -> measured over predicted, 5 % and 95 %."""


class Band(NamedTuple):
    """Factors (low, high) for the three figures."""

    factors: dict[str, tuple[float, float]]
    at_most: bool = False

    def ttft(self, likely: float) -> Range:
        """Around a time to first token."""
        return self._around("ttft", likely)

    def tpot(self, likely: float) -> Range:
        """Around a time per token."""
        return self._around("tpot", likely)

    def throughput(self, likely: float) -> Range:
        """Around a throughput."""
        return self._around("throughput", likely)

    def _around(self, figure: str, likely: float) -> Range:
        low, high = self.factors[figure]
        return Range(likely * min(low, 1.0), likely, likely * max(high, 1.0))


def load_kind(situation: Situation, timing: Timing) -> str:
    """The kind of load that a row belongs to: rows of one kind go wrong alike."""
    if situation.concurrency is None:
        return "most"
    waits = timing.bound != "asked"
    return "heavy" if waits or situation.concurrency > queueing.MANY else "light"


def band_of(situation: Situation, timing: Timing) -> Band:
    """The factors for a situation; wider where the engine was never timed on such a card."""
    if situation.measured is not None:
        return Band(dict.fromkeys(FIGURES, situation.measured.range))
    facts = layout.facts(situation.engine)
    family = layout.family(situation.setup.card)
    timed = situation.known and family in facts.get("timed_on", ())
    own, others = facts.get("ranges", {}) if timed else {}, layout.shared()["ranges"]
    load = load_kind(situation, timing)
    return Band({name: factors(own, others, name, load) for name in FIGURES}, at_most=not timed)


def factors(own: Ranges, others: Ranges, figure: str, load: str) -> tuple[float, float]:
    """Low and high over likely: from the engine's `own` errors, else from those of engines on other cards."""
    low, high, *_ = own.get(f"{figure}.{load}") or own.get(figure) or others[figure]
    return float(low), float(high)


if TYPE_CHECKING:
    from os import PathLike

    from memserve.speed.learnt import Learnt

PCIE = 12e9
"""Bytes per second one way between cards without a link of their own and without a stated PCIe rate."""
HOST_SHARE = 0.4
"""What of PCIe's rate two cards get from each other through the host."""
MOST_DRAFTS = 64
NETWORK = 12.5e9
"""100 Gbit/s: what is assumed between nodes where the machine does not say."""


def predict(model: str | PathLike[str] | ModelSpec, gpus: str | Machine, *, backend: str,
            engine_version: str | None = None, quantization: str | None = None,
            tensor_parallel: int | None = None, input_tokens: float, output_tokens: float,
            concurrency: float | None = None, **options: Any) -> Speed:  # fmt: skip
    """The speed of a model under a steady load of equal requests.

    `input_tokens` are a request's new tokens. `concurrency` requests are always in flight; None asks for
    the most that the machine can serve. `options` are those of `situate`: pipeline_parallel,
    data_parallel, prefix_tokens (already in the cache), kv_dtype, max_sequences; and `draft_tokens`: how many
    tokens speculative decoding foretells a step.
    """
    drafts = options.pop("draft_tokens", 0)
    result.number("draft_tokens", drafts, most=MOST_DRAFTS)
    load = queueing.Load(input_tokens, output_tokens, options.pop("prefix_tokens", 0.0))
    spec, machine, away = _spec(model), _machine(gpus), options.pop("host_layers", 0)
    on_cards, on_host = parted(spec, away)
    situation = situate(
        shape.of(on_cards), machine, backend, load, concurrency, engine_version=engine_version,
        quantization=quantization, tensor_parallel=tensor_parallel, **options,
    )  # fmt: skip
    found = with_drafts(judge(situation), drafts, situation) if drafts else judge(situation)
    return with_host(found, shape.of(on_host), situation) if away else found


def with_drafts(found: Speed, drafts: int, situation: Situation) -> Speed:
    """The same where so many tokens are foretold a step: each step reads them all, and keeps what agrees."""
    low, likely, high = (
        sum(share**place for place in range(drafts + 1)) for share in layout.shared()["drafts"]["acceptance"]
    )
    setup, load, later = situation.setup, situation.load, found.tpot_ms
    steps = [step.decode(setup, found.batch * tokens, load.mean) for tokens in (1, 1 + drafts)]
    cost = steps[1] / steps[0]
    tpot = Range(later.low * cost / high, later.likely * cost / likely, later.high * cost / low)
    before, after = (found.ttft_ms.likely + load.output_tokens * one.likely for one in (later, tpot))
    rate, scale = found.output_tokens_per_s, before / after
    spread = Range(rate.low * scale * low / likely, rate.likely * scale, rate.high * scale * high / likely)
    return replace(found, tpot_ms=tpot, output_tokens_per_s=spread)


def with_host(found: Speed, held: shape.Shape, situation: Situation) -> Speed:
    """The same with these layers and the head on the host: read there for each token, copied for prompts."""
    facts, setup, load = layout.facts(situation.engine)["host"], situation.setup, situation.load
    read, work = held.active * setup.format.bits / 8, 2 * held.active / facts["flops"]
    slow, likely, fast = (max(read / rate, found.batch * work) * 1e3 for rate in facts["bytes_per_s"])
    copied = layout.stored_bytes(held, setup.format) * ceil(load.input_tokens / facts["chunk"])
    link = setup.card.host_link.bytes_per_second if setup.card.host_link else PCIE
    copying = copied / link * 1e3 + found.ttft_ms.likely * held.active / setup.shape.active
    prompt = min(copying, load.input_tokens * work * 1e3)
    first, later = found.ttft_ms, found.tpot_ms
    ttft = Range(first.low + prompt / 2, first.likely + prompt, first.high + prompt * 2)
    tpot = Range(later.low + fast, later.likely + likely, later.high + slow)
    before, after = (
        one.likely + load.output_tokens * each.likely for one, each in ((first, later), (ttft, tpot))
    )
    rate = found.output_tokens_per_s.likely * before / after
    spread = Range(rate * tpot.likely / tpot.high, rate, rate * tpot.likely / tpot.low)
    return replace(found, ttft_ms=ttft, tpot_ms=tpot, output_tokens_per_s=spread)


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
    engine = layout.used(backend, card)
    facts = layout.facts(engine)
    form = shape.format_of(quantization, model, card)
    spread = layout.spread(
        model, machine, form, facts, tensor_parallel, pipeline_parallel, data_parallel, concurrency is None
    )
    limits = layout.limits(engine, engine_version, card)
    generation = layout.generation(engine, engine_version)
    known = _learnt(backend, card.name, spread.tensor, model.id)
    constants = layout.constants(engine, layout.family(card), generation)
    setup = Setup(
        shape=model, format=form, card=card,
        constants=known.scaled(constants) if known else constants, tensor=spread.tensor,
        pipeline=spread.pipeline, kv_bytes=_kv_bytes(kv_dtype, facts, form), link=_link(machine, spread),
        sharing=spread.experts,
    )  # fmt: skip
    limits = limits._replace(sequences=max_sequences) if max_sequences else limits
    return Situation(
        engine,
        layout.kind(backend) is not None,
        generation,
        setup,
        spread,
        load,
        limits,
        concurrency,
        known if known and known.model == model.id else None,
    )


def _learnt(backend: str, card: str, tensor: int, model: str) -> Learnt | None:
    """What `--calibrate` taught of such cards; nothing is loaded where it taught nothing."""
    if not files.is_configured(files.SPEED):
        return None
    from memserve.speed.learnt import find

    return find(backend, card, tensor, model)


def judge(situation: Situation) -> Speed:
    """Time a situation and put the ranges around it."""
    timing = queueing.time(situation.setup, situation.load, situation.limits, situation.each)
    rate = _requests_per_s(situation, timing) * situation.load.output_tokens * situation.busy
    band = band_of(situation, timing)
    tpot = band.tpot(timing.tpot * 1e3)
    return Speed(
        ttft_ms=band.ttft(timing.ttft * 1e3),
        tpot_ms=replace(tpot, low=min(tpot.likely, max(tpot.low, _least(situation) * 1e3))),
        output_tokens_per_s=band.throughput(rate), at_most=band.at_most, batch=timing.batch,
        bound=timing.bound, notes=situation.spread.notes,
    )  # fmt: skip


def _least(situation: Situation) -> float:
    """Seconds in which a card reads what one token needs of the weights, if nothing else took time.

    A CPU's bandwidth is assumed, and its caches hold a small model.
    """
    setup = situation.setup
    return 0.0 if setup.card.vendor == "cpu" else step.weight_bytes(setup, 1.0) / setup.card.bandwidth


def _requests_per_s(situation: Situation, timing: Timing) -> float:
    """Where both times were measured, the rate follows from them: so many in flight for so long (Little)."""
    if situation.measured is None or situation.each is None:
        return timing.requests_per_s
    return situation.each / (timing.ttft + max(0.0, situation.load.output_tokens - 1) * timing.tpot)


def _counts(load: queueing.Load, concurrency: float | None) -> None:
    result.number("input_tokens", load.input_tokens, most=result.MOST_TOKENS)
    result.number("prefix_tokens", load.prefix_tokens, most=result.MOST_TOKENS)
    result.number("output_tokens", load.output_tokens, above=True, most=result.MOST_TOKENS)
    if concurrency is not None:
        result.number("concurrency", concurrency, above=True, most=result.MOST_TOKENS)


def _choices(words: dict[str, object], degrees: dict[str, object]) -> None:
    for name, value in words.items():
        result.word(name, value, needed=name == "backend")
    for name, value in degrees.items():
        result.degree(name, value)


def _spec(model: Any) -> ModelSpec:
    if hasattr(model, "blocks"):
        return model  # type: ignore[no-any-return]
    from memserve.model import load

    return load(model)


def _machine(gpus: Any) -> Machine:
    if hasattr(gpus, "card"):
        return gpus  # type: ignore[no-any-return]
    result.word("gpus", gpus, needed=True)
    from memserve.hardware import parse

    return parse(gpus)


def _kv_bytes(kv_dtype: str | None, facts: EngineSpeed, form: shape.Format) -> float:
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


def texts_per_s(model: ModelSpec, machine: Machine, *, backend: str, input_tokens: float,
                **layout: Any) -> Range:  # fmt: skip
    """Texts of so many tokens that the whole machine reads a second when it is kept busy."""
    situation = situate(
        shape.of(model), machine, backend, queueing.Load(max(1.0, input_tokens), 1.0), None, **layout
    )
    seen = input_tokens if model.encoder_only else input_tokens / 2
    rate = _texts_rate(situation, seen) * situation.spread.replicas
    low, high = _texts()["range"]
    return Range(rate * low, rate, rate * high)


def _share(situation: Situation) -> float:
    """Of the card's arithmetic peak: the engine's, where its folder states one, else everybody's."""
    known = layout.facts(situation.engine).get("texts_share", _texts()["share"])
    return float(known * _texts()["cards"].get(layout.family(situation.setup.card), 1.0))


@cache
def _texts() -> dict[str, Any]:
    return dict(files.table(__file__, "../data/texts.json"))


def _texts_rate(situation: Situation, seen: float) -> float:
    """Texts a second of one replica: full steps, of which each token sees so many others."""
    limits, tokens, k = situation.limits, situation.load.input_tokens, situation.setup.constants
    setup = situation.setup._replace(constants=replace(k, prefill=_share(situation)))
    together = max(1.0, min(limits.sequences, limits.tokens / tokens))
    chunk = min(tokens * together, float(limits.tokens))
    work = tokens * together / chunk * (step.prefill(setup, chunk, seen) + k.step_s)
    launches = setup.shape.layers * k.layer_s if k.overlaps else 0.0
    return together / (max(work, launches) + together * k.sequence_s)
