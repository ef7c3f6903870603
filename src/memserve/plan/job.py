"""`--workload`, `--deadline`, `--budget`: how long a job takes on a plan, and what it costs."""

from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from memserve.errors import InvalidInput
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import Judged
from memserve.speed.prices import Price
from memserve.speed.workloads import Estimate, Workload

STEP = 256
"""Contexts that follow from a workload are rounded up to it."""


@dataclass(frozen=True)
class Job:
    """A workload and what bounds it."""

    workload: Workload
    deadline: float | None = None
    """Seconds."""
    budget: float | None = None
    """Dollars."""
    rpm: float | None = None
    """Requests a minute that a provider takes."""
    tpm: float | None = None
    """Tokens a minute that a provider takes."""
    batch: bool = False
    """Priced at the provider's batch service."""

    def of(self, model: ModelSpec) -> "Job":
        """The job as a model does it: an embedder writes nothing, and a generator must write something."""
        if model.embeds:
            return replace(self, workload=replace(self.workload, output_tokens=0.0))
        if model.blocks and self.workload.output_tokens == 0:
            raise InvalidInput(
                f"{self.workload.name} has no output tokens, and {model.id} is no embedder",
                hint="say IN:OUT:N, as 1000:200:5000",
            )
        return self

    @property
    def bounded(self) -> bool:
        """Whether it must be done in time, or for so much."""
        return self.deadline is not None or self.budget is not None

    @property
    def at_provider(self) -> list[str]:
        """What was said that only a provider heeds."""
        return [name for name in ("rpm", "tpm", "batch") if getattr(self, name)]

    @property
    def context(self) -> int:
        """Tokens that one request of the workload needs."""
        tokens = self.workload.prompt_tokens + self.workload.output_tokens
        return ceil(tokens / STEP) * STEP

    def on(self, model: ModelSpec, machine: Machine, plan: Judged,
           usd_per_hour: float | None) -> dict[str, Any]:  # fmt: skip
        """The job on the user's own cards."""
        from memserve.speed import workloads

        layout = plan.deployment.layout
        return self._told(workloads.assess(
            self.workload, model, machine, backend=plan.backend, engine_version=plan.engine_version,
            quantization=plan.quantization, tensor_parallel=layout.tensor, pipeline_parallel=layout.pipeline,
            data_parallel=layout.data, kv_dtype=plan.kv_dtype, usd_per_hour=usd_per_hour,
        ))  # fmt: skip

    def by(self, price: Price) -> dict[str, Any]:
        """The job at a provider."""
        from memserve.speed import workloads

        found = workloads.ask(self.workload, price, requests_per_minute=self.rpm, tokens_per_minute=self.tpm,
                              batch=self.batch)  # fmt: skip
        return self._told(found)

    def _told(self, estimate: Estimate) -> dict[str, Any]:
        from memserve.speed import workloads as made

        hours = [_figures(seconds / 3600) for seconds in estimate.seconds]
        told: dict[str, Any] = {
            "name": self.workload.name, "requests": self.workload.requests,
            "prompt_tokens": self.workload.prompt_tokens, "output_tokens": self.workload.output_tokens,
            "hours": _range(hours), "gpu_hours": estimate.gpu_hours, "kwh": estimate.kwh,
            "usd": None if estimate.usd is None else _range([_figures(usd) for usd in estimate.usd]),
            "concurrency": estimate.concurrency, "at_most": estimate.at_most, "notes": list(estimate.notes),
            "assumptions": [one._asdict() for one in estimate.assumptions],
        }  # fmt: skip
        if self.deadline is not None:
            told["within_deadline"] = made.within_deadline(estimate, self.deadline)
            told["machines_for_deadline"] = made.machines_until(estimate, self.deadline)
        if self.budget is not None:
            told["within_budget"] = made.within_budget(estimate, self.budget)
            told["affordable_requests"] = made.affordable_requests(estimate, self.budget)
        return told


def read(workload: str | Workload | None = None, deadline: str | float | None = None,
         budget: float | None = None, rpm: float | None = None, tpm: float | None = None,
         batch: bool = False) -> Job:  # fmt: skip
    """The job that the options name; bounds without a workload bound nothing."""
    if workload is None:
        raise InvalidInput(
            "--deadline, --budget, --rpm, --tpm and --batch need a --workload, as locomo or 1000:200:50"
        )
    from memserve.speed import workloads

    found = workloads.find(workload) if isinstance(workload, str) else workload
    if not isinstance(found, workloads.Workload):
        raise InvalidInput(f"workload must be a name, IN:OUT:N or a file, not {str(workload)[:40]!r}")
    seconds = workloads.seconds_of(deadline) if isinstance(deadline, str) else deadline
    for name, bound in (("deadline", seconds), ("budget", budget), ("rpm", rpm), ("tpm", tpm)):
        number = isinstance(bound, int | float) and not isinstance(bound, bool)
        if bound is not None and not (number and 0 < bound < float("inf")):
            raise InvalidInput(f"{name} must be a number above 0, not {str(bound)[:40]!r}")
    return Job(found, seconds, budget, rpm, tpm, batch)


def _figures(value: float) -> float:
    """Four figures, however small or large: a workload of one request takes time, too."""
    return float(f"{value:.4g}")


def _range(values: list[float]) -> dict[str, float]:
    return dict(zip(("low", "likely", "high"), values, strict=True))
