"""The candidates that no other beats in throughput, time to an answer and money at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from memserve.hardware import instances
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import Candidate
from memserve.plan.query import Query
from memserve.plan.search import pricing
from memserve.plan.search.checkpoints import loaded
from memserve.speed.result import Speed


@dataclass(frozen=True)
class Trade:
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
        "at most: never measured there" if one.at_most else "",
    )  # fmt: skip
