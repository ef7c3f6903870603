"""Ranks the candidates that fit by the objective, quality first; and what none of them beats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from math import inf
from typing import Any, NamedTuple

from memserve.engines import installed
from memserve.engines.rules.judge import release
from memserve.hardware import instances
from memserve.hardware.machine import Machine
from memserve.memory import formats
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import (
    KV,
    OVERFLOWS,
    UNTIMED,
    Candidate,
    Checkpoint,
    Judged,
    loaded,
    preference,
    steps,
    weight_loss,
)
from memserve.plan.query import Query
from memserve.plan.search import pricing
from memserve.plan.search.offers import consider, cramped, of_backend, on_time, squeezed
from memserve.speed.result import Speed

ROOMY = 1 / 3
"""Weights below this share of a card need no further shards: copies of the model then serve better."""
FP8_HARDWARE = 89
TWICE = 2
UNPACKED = 3
"""What FP8 weights that are unpacked lose to 8-bit integers, as losses.json counts: no faster arithmetic."""


SURE = 2 / 3
"""Of a model's weights at their nominal bits: what is loaded even where an engine leaves its encoder out."""


def ranked(candidates: Iterable[Candidate], model: ModelSpec, machine: Machine,
           query: Query) -> list[Candidate]:  # fmt: skip
    """Those that fit, the best first."""
    rank = Rank(model, machine, query)
    fitting = [candidate for candidate in candidates if candidate.fits]
    if all(one.remote for one in fitting):
        return fitting
    return rank.bounded_first(rank.swifter_first(sorted(fitting, key=rank)))


def _led(best: list[Candidate], one: Candidate | None) -> list[Candidate]:
    """The same with one of them before all others."""
    return [one, *(other for other in best if other is not one)] if one else best


def first(model: ModelSpec, machine: Machine, query: Query) -> Candidate | None:
    """The best, as `ranked` has it; what could not be better is not judged."""
    rank, found = Rank(model, machine, query), list[Candidate]()
    if not model.blocks or not installed.plans_locally(query.backend) or (query.job and query.job.bounded):
        return next(iter(ranked(consider(model, machine, query), model, machine, query)), None)
    for name in installed.asked(query.backend, query.engine_version):
        backend, every = installed.named(name), Checkpoint("", "none")
        if not rank.behind(name, every):
            for one in of_backend(name, backend, model, machine, query, behind=rank.behind):
                if (timed := on_time(one, model, machine, query)).fits:
                    found.append(timed)
                    rank.least = min(rank.least, rank.outlook(timed))
    return next(iter(ranked(found, model, machine, query)), None)


class Rank:
    """The sort key of one objective on one machine: smaller is better."""

    def __init__(self, model: ModelSpec, machine: Machine, query: Query) -> None:
        self.model, self.machine, self.query = model, machine, query
        self.least: tuple[float, ...] = (inf,)
        """The outlook of the best that was judged so far."""

    def outlook(self, candidate: Judged) -> tuple[float, ...]:
        """What decides first, as far as `behind` can foretell it."""
        resort = self.last_resort(candidate)
        if self.query.objective != "quality" or any(resort):
            return resort
        engine, stages = installed.named(candidate.backend).rules.get("rank", 9), self.layout(candidate)[0]
        return (*resort, *self.quality(candidate, self.effort(candidate)), stages,
                int(candidate.deployment.eager), engine)  # fmt: skip

    def behind(self, backend: str, checkpoint: Checkpoint) -> bool:
        """Whether nothing that an engine makes of a checkpoint could rank before what was judged."""
        rules, loss = installed.named(backend).rules, weight_loss(checkpoint)
        there = self.machine.cards * self.machine.card.memory
        if checkpoint.id and not self.query.offload and self.least_bytes(checkpoint) > there:
            return True
        slow = int(not rules["serves"].get("continuous_batching") and self.query.backend != backend)
        made = int(checkpoint.make is not None)
        hoped = (False, 0, slow, steps(loss, "auto"), made, 0, 0, loss, 0, 0, rules.get("rank", 9))
        return not any(self.least[:3]) and self.least < hoped[: len(self.least)]

    def least_bytes(self, checkpoint: Checkpoint) -> float:
        """What no engine's copy of the weights falls below."""
        usual = formats.named(checkpoint.quantization) if checkpoint.make or checkpoint.online else None
        return self.model.parameters * (usual.bits if usual else checkpoint.bits) / 8 * SURE

    def __call__(self, candidate: Judged) -> tuple[Any, ...]:
        """Last resorts last; then quality, or what the objective asks; then what is easiest to start."""
        effort = self.effort(candidate)
        engine = installed.named(candidate.backend).rules.get("rank", 9)
        taste = (candidate.deployment.eager, engine, preference(candidate.quantization))
        if self.query.objective != "quality":
            return (*self.last_resort(candidate), effort, self.pace(candidate), *taste)
        stages, *layout = self.layout(candidate)
        return (*self.last_resort(candidate), *self.quality(candidate, effort), stages, *taste, *layout)

    def effort(self, candidate: Judged) -> int:
        """What must be made before it starts: the checkpoint, the engine."""
        return int(candidate.checkpoint.make is not None) + int(self.built(candidate))

    def swifter_first(self, best: list[Candidate]) -> list[Candidate]:
        """Of last resorts what exists and is twice as fast goes first: 8 bits before 16, else as many."""
        first = best[0] if best else None
        if first is None or self.model.embeds or self.query.objective != "quality":
            return best
        slow = self._last_resort(first)
        return _led(best, next(filter(partial(self.swifter, first), best[1:]), None) if slow else None)

    def bounded_first(self, best: list[Candidate]) -> list[Candidate]:
        """What does the job in time and for the money goes before what does not."""
        bounded = self.query.job is not None and self.query.job.bounded
        return _led(best, next(filter(self.in_bounds, best), None) if bounded else None)

    def in_bounds(self, candidate: Judged) -> bool:
        """Whether the job is likely done by its deadline and for its budget."""
        job, rent = self.query.job, instances.rent(self.machine).usd_per_hour
        if job is None:
            return True
        told = job.on(loaded(self.model, candidate.checkpoint), self.machine, candidate, rent)
        hours, usd = told["hours"]["likely"], told["usd"]["likely"] if told["usd"] else 0.0
        return bool(hours * 3600 <= (job.deadline or inf) and usd <= (job.budget or inf))

    def swifter(self, slow: Judged, candidate: Judged) -> bool:
        """Whether its weights, which exist, answer twice as fast as what ranks before them."""
        alike = self.last_resort(candidate) == self.last_resort(slow) and candidate.backend != slow.backend
        own = steps(weight_loss(slow.checkpoint), "auto")
        if not alike or candidate.checkpoint.make or self.quality(candidate, 0)[0] != max(1, own):
            return False
        at_once, job = self.query.concurrency, self.query.job
        held = ((loaded(self.model, one.checkpoint), one) for one in (candidate, slow))
        speeds = (pricing.speed(model, self.machine, one, at_once, job) for model, one in held)
        rates = (one.output_tokens_per_s.likely if own else tokens_per_s(one) for one in speeds)
        return next(rates) >= TWICE * next(rates)

    def quality(self, candidate: Judged, effort: int) -> tuple[int, ...]:
        """Steps below 16 bits, barely running as one; of equals what exists, runs well, loses least."""
        loss, barely = weight_loss(candidate.checkpoint), cramped(candidate, self.machine)
        lost = steps(loss, candidate.kv_dtype) + int(barely) + self.twice(candidate)
        finer = loss + UNPACKED * int(self.emulated(candidate))
        return (lost, effort, int(barely), KV.get(candidate.kv_dtype, 9), finer)

    def because(self, candidate: Judged, chosen: Judged) -> str:
        """Which preference put a candidate that fits behind the chosen one."""
        job = self.query.job
        if job and job.bounded and self(candidate) < self(chosen) and not self.in_bounds(candidate):
            return "it does the job too late or for too much"
        if self.last_resort(candidate) != self.last_resort(chosen):
            away = candidate.deployment.host_layers
            if away and candidate.checkpoint.make and not chosen.checkpoint.make:
                return "its checkpoint would have to be made"
            if away > chosen.deployment.host_layers:
                return f"{away} of its layers stay on the host"
            return f"{candidate.backend} in {candidate.dtype} is a last resort"
        if self.query.objective != "quality":
            return f"{self.query.objective} is asked for"
        if weight_loss(candidate.checkpoint) < weight_loss(chosen.checkpoint) and self(candidate) < self(
            chosen
        ):
            return f"{chosen.backend} answers at least twice as fast"
        if cramped(candidate, self.machine):
            return "it barely runs (stages, no graphs, float32, or hardly more than one request)"
        if KV.get(candidate.kv_dtype) and not KV.get(chosen.kv_dtype):
            return f"it needs a KV cache in {candidate.kv_dtype}"
        if candidate.checkpoint.make and not chosen.checkpoint.make:
            return "its checkpoint would have to be made"
        if self.twice(candidate) > self.twice(chosen):
            return "its weights are quantized a second time"
        if self.built(candidate) and not self.built(chosen):
            return f"{candidate.backend} would have to be built for this card"
        emulated = self.emulated(candidate)
        return "no FP8 arithmetic on this card" if emulated else f"{chosen.quantization} is better supported"

    def twice(self, candidate: Judged) -> int:
        """Steps that the model's own weights have lost before others were made of them."""
        own = self.model.quantization
        if own is None or candidate.checkpoint.stored:
            return 0
        return steps(weight_loss(Checkpoint(self.model.id, own.method, bits=own.bits)), "auto")

    def last_resort(self, candidate: Judged) -> tuple[bool, int, int]:
        """Layers on the host, no batching, float32, a dtype too narrow: not before nothing else fits.

        Of those with layers on the host a checkpoint that exists goes first, then the fewest layers.
        """
        away, made = candidate.deployment.host_layers, candidate.checkpoint.make
        return bool(away and made), away, self._last_resort(candidate)

    def _last_resort(self, candidate: Judged) -> int:
        serves = installed.named(candidate.backend).rules.get("serves", {})
        slow = not serves.get("continuous_batching") and self.query.backend != candidate.backend
        narrow = self.model.model_type in OVERFLOWS.get(candidate.dtype, ())
        if narrow and not candidate.quantization.startswith("gguf"):  # llama.cpp adds up in float32
            return 3
        return int(slow) * (1 + (self.query.concurrency > 1)) or int(candidate.dtype == "float32")

    def built(self, candidate: Judged) -> bool:
        """An engine without packages for this maker's cards: building it is as much work as a checkpoint."""
        row = release(installed.named(candidate.backend).rules, candidate.engine_version)
        return "install" in row.get("on", {}).get(self.machine.card.vendor, {})

    def emulated(self, candidate: Judged) -> bool:
        """FP8 weights on a card that cannot multiply them."""
        sm = self.machine.card.sm
        return candidate.quantization == "fp8" and sm is not None and sm < FP8_HARDWARE

    def layout(self, candidate: Judged) -> tuple[Any, ...]:
        """No stages, no idle cards, not tight; then few shards if the weights leave room, else the most."""
        spread, footprint = candidate.deployment.layout, candidate.footprint
        share = footprint.weights / max(1, footprint.usable) if footprint else 0.0
        size = spread.tensor * spread.pipeline
        roomy = share <= ROOMY
        return (
            spread.pipeline > 1 or squeezed(candidate, self.machine), self.idle(candidate),
            bool(candidate.tight), not roomy, size if roomy else -size, spread.pipeline,
        )  # fmt: skip

    def idle(self, candidate: Judged) -> int:
        """Cards of the last node that nothing uses, for engines that gain by each."""
        serves = installed.named(candidate.backend).rules.get("serves", {})
        if not serves.get("tensor_parallel"):
            return 0
        return -candidate.deployment.layout.cards % self.machine.cards_per_node

    def pace(self, candidate: Judged) -> float:
        """Seconds or dollars per answer, as predicted; by the slow end where nobody measured."""
        job, latency = self.query.job, self.query.objective == "latency"
        concurrency = self.query.concurrency if latency else None
        if self.model.embeds:
            return 1 / pricing.texts(self.model, self.machine, candidate, job).likely
        speed = pricing.speed(self.model, self.machine, candidate, concurrency, job)
        if latency:
            return answer_s(speed, pricing.load(candidate, job)[1])
        cards = candidate.deployment.layout.cards if self.query.objective == "cost" else 1
        return cards / tokens_per_s(speed)


class Trade(NamedTuple):
    """One candidate in the three figures that objectives weigh."""

    candidate: Candidate
    tokens_per_s: float
    """Output tokens of the machine at full load."""
    first_s: float
    answer_s: float
    """To the last token, at the concurrency that was asked for."""
    usd_per_mtok: float | None
    """Of output at full load, for the cards in use; None where no price is known."""
    weighed: tuple[float, ...]
    """What is compared, smaller being better."""
    at_most: bool = False
    """Its engine was never measured there: compared by the slow end of its range, shown by the likely one."""

    def beats(self, other: Trade) -> bool:
        """Nowhere worse, somewhere better."""
        pairs = list(zip(self.weighed, other.weighed, strict=True))
        return all(mine <= theirs for mine, theirs in pairs) and self.weighed != other.weighed

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        layout = self.candidate.deployment.layout
        return {
            "backend": self.candidate.backend, "engine_version": self.candidate.engine_version or None,
            "quantization": self.candidate.quantization, "kv_dtype": self.candidate.kv_dtype,
            "tensor_parallel": layout.tensor, "pipeline_parallel": layout.pipeline,
            "data_parallel": layout.data, "output_tokens_per_s": round(self.tokens_per_s, 1),
            "ttft_ms": round(self.first_s * 1e3, 1), "answer_s": round(self.answer_s, 3),
            "usd_per_mtok_output": None if self.usd_per_mtok is None else round(self.usd_per_mtok, 4),
            "at_most": self.at_most,
        }  # fmt: skip


def front(candidates: Iterable[Candidate], model: ModelSpec, machine: Machine,
          query: Query) -> tuple[Trade, ...]:  # fmt: skip
    """The non-dominated candidates that fit on the user's cards, the fastest first; equals once."""
    found: dict[tuple[float, ...], Trade] = {}
    for candidate in candidates:
        if candidate.fits and not candidate.remote:
            made = trade(candidate, model, machine, query)
            found.setdefault(made.weighed, made)
    best = [one for one in found.values() if not any(other.beats(one) for other in found.values())]
    return tuple(sorted(best, key=lambda one: one.weighed))


def trade(candidate: Candidate, model: ModelSpec, machine: Machine, query: Query) -> Trade:
    """A candidate's three figures."""
    held = loaded(model, candidate.checkpoint)
    busy = pricing.speed(held, machine, candidate, None, query.job)
    asked = pricing.speed(held, machine, candidate, query.concurrency, query.job)
    output = pricing.load(candidate, query.job)[1]
    cards, hourly = candidate.deployment.layout.cards, instances.rent(machine).usd_per_hour
    rate, sure = busy.output_tokens_per_s.likely, tokens_per_s(busy)
    usd = None if hourly is None else hourly * cards / machine.cards / 3600 / rate * 1e6
    return Trade(
        candidate, rate, asked.ttft_ms.likely / 1e3, _answer(asked, output, "likely"), usd,
        (1 / sure, answer_s(asked, output), cards / sure), busy.at_most,
    )  # fmt: skip


def tokens_per_s(speed: Speed) -> float:
    """What to count on: an engine that nobody measured there counts by the slow end of its range."""
    found = speed.output_tokens_per_s
    return found.low if speed.at_most else found.likely


def answer_s(speed: Speed, output: float) -> float:
    """Seconds to a whole answer, to count on in the same sense."""
    return _answer(speed, output, "high" if speed.at_most else "likely")


def _answer(speed: Speed, output: float, end: str) -> float:
    later = max(0.0, output - 1) * getattr(speed.tpot_ms, end)
    return float(getattr(speed.ttft_ms, end) + later) / 1e3


HEADER = ("", "engine", "weights", "layout", "tokens/s", "first s", "answer s", "$/Mtok", "")


def rows(trades: Sequence[Trade], chosen: object) -> tuple[tuple[str, ...], ...]:
    """The table for a person; a star marks the plan."""
    return tuple(_row(one, one.candidate.deployment == chosen) for one in trades)


def _row(one: Trade, chosen: bool) -> tuple[str, ...]:
    layout = one.candidate.deployment.layout
    return (
        "*" if chosen else "", f"{one.candidate.backend} {one.candidate.engine_version}",
        one.candidate.quantization, f"tp {layout.tensor} pp {layout.pipeline} dp {layout.data}",
        f"{one.tokens_per_s:.0f}", f"{one.first_s:.2f}", f"{one.answer_s:.2f}",
        "-" if one.usd_per_mtok is None else f"{one.usd_per_mtok:.2f}",
        UNTIMED if one.at_most else "",
    )  # fmt: skip
