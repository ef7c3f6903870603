"""Ranks the candidates that fit, by the objective; quality first unless asked otherwise."""

from collections.abc import Iterable
from typing import Any

from memserve.engines import installed
from memserve.engines.rules.judge import release
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import Candidate, Judged
from memserve.plan.losses import KV, OVERFLOWS, preference, steps, weight_loss
from memserve.plan.query import Query
from memserve.plan.search import pricing
from memserve.plan.search.offers import cramped, squeezed

ROOMY = 1 / 3
"""Weights below this share of a card need no further shards: copies of the model then serve better."""
FP8_HARDWARE = 89
UNPACKED = 3
"""What FP8 weights that are unpacked lose to 8-bit integers, as losses.json counts: no faster arithmetic."""


def ranked(candidates: Iterable[Candidate], model: ModelSpec, machine: Machine,
           query: Query) -> list[Candidate]:  # fmt: skip
    """Those that fit, the best first."""
    rank = Rank(model, machine, query)
    fitting = [candidate for candidate in candidates if candidate.fits]
    return fitting if all(one.remote for one in fitting) else sorted(fitting, key=rank)


class Rank:
    """The sort key of one objective on one machine: smaller is better."""

    def __init__(self, model: ModelSpec, machine: Machine, query: Query) -> None:
        self.model, self.machine, self.query = model, machine, query

    def __call__(self, candidate: Judged) -> tuple[Any, ...]:
        """Last resorts last; then quality, or what the objective asks; then what is easiest to start."""
        effort = int(candidate.checkpoint.make is not None) + int(self.built(candidate))
        engine = installed.named(candidate.backend).rules.get("rank", 9)
        taste = (candidate.deployment.eager, engine, preference(candidate.quantization))
        if self.query.objective != "quality":
            return (self.last_resort(candidate), effort, self.pace(candidate), *taste)
        stages, *layout = self.layout(candidate)
        return (self.last_resort(candidate), *self.quality(candidate, effort), stages, *taste, *layout)

    def quality(self, candidate: Judged, effort: int) -> tuple[int, ...]:
        """Steps below 16 bits, barely running as one; of equals what exists, runs well, loses least."""
        loss, barely = weight_loss(candidate.checkpoint), cramped(candidate, self.machine)
        lost = steps(loss, candidate.kv_dtype) + int(barely)
        finer = loss + UNPACKED * int(self.emulated(candidate))
        return (lost, effort, int(barely), KV.get(candidate.kv_dtype, 9), finer)

    def because(self, candidate: Judged, chosen: Judged) -> str:
        """Which preference put a candidate that fits behind the chosen one."""
        if self.last_resort(candidate) != self.last_resort(chosen):
            return f"{candidate.backend} in {candidate.dtype} is a last resort"
        if self.query.objective != "quality":
            return f"{self.query.objective} is asked for"
        if cramped(candidate, self.machine):
            return "it barely runs (stages, no graphs, float32, or hardly more than one request)"
        if KV.get(candidate.kv_dtype) and not KV.get(chosen.kv_dtype):
            return f"it needs a KV cache in {candidate.kv_dtype}"
        if candidate.checkpoint.make and not chosen.checkpoint.make:
            return "its checkpoint would have to be made"
        if self.built(candidate) and not self.built(chosen):
            return f"{candidate.backend} would have to be built for this card"
        emulated = self.emulated(candidate)
        return "no FP8 arithmetic on this card" if emulated else f"{chosen.quantization} is better supported"

    def last_resort(self, candidate: Judged) -> int:
        """No batching, float32, a dtype too narrow for the model: not before nothing else fits."""
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
        """No stages, no idle cards; then few shards if the weights leave room, else as many as there are."""
        spread, footprint = candidate.deployment.layout, candidate.footprint
        share = footprint.weights / max(1, footprint.usable) if footprint else 0.0
        size = spread.tensor * spread.pipeline
        roomy = share <= ROOMY
        return (
            spread.pipeline > 1 or squeezed(candidate, self.machine), self.idle(candidate), not roomy,
            size if roomy else -size, spread.pipeline,
        )  # fmt: skip

    def idle(self, candidate: Judged) -> int:
        """Cards of the last node that nothing uses, for engines that gain by each."""
        serves = installed.named(candidate.backend).rules.get("serves", {})
        if not serves.get("tensor_parallel"):
            return 0
        return -candidate.deployment.layout.cards % self.machine.cards_per_node

    def pace(self, candidate: Judged) -> float:
        """Seconds or dollars per answer, as predicted; by the slow end where nobody measured."""
        from memserve.plan.search import pareto

        job, latency = self.query.job, self.query.objective == "latency"
        concurrency = self.query.concurrency if latency else None
        if self.model.embeds:
            return 1 / pricing.texts(self.model, self.machine, candidate, job).likely
        speed = pricing.speed(self.model, self.machine, candidate, concurrency, job)
        if latency:
            return pareto.answer_s(speed, pricing.load(candidate, job)[1])
        cards = candidate.deployment.layout.cards if self.query.objective == "cost" else 1
        return cards / pareto.tokens_per_s(speed)
