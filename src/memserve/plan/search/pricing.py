"""The seam to `memserve.speed`: how fast and how dear a candidate is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memserve.hardware.machine import Machine, Rent
    from memserve.model.spec import ModelSpec
    from memserve.plan.candidate import Judged
    from memserve.plan.job import Job
    from memserve.speed.result import Speed

INPUT_TOKENS = 1024
OUTPUT_TOKENS = 256
"""The load of the figures where no workload is named."""


def load(candidate: Judged, job: Job | None) -> tuple[float, float]:
    """Prompt and output tokens of the requests that figures are given for."""
    if job is not None:
        return job.workload.prompt_tokens, job.workload.output_tokens
    prompt = min(INPUT_TOKENS, max(1, candidate.context * 3 // 4))
    return prompt, min(OUTPUT_TOKENS, max(1, candidate.context - prompt))


def speed(model: ModelSpec, machine: Machine, candidate: Judged, concurrency: int | None,
          job: Job | None = None) -> Speed:  # fmt: skip
    """A candidate's speed; None for `concurrency` asks for the most it can serve."""
    from memserve.speed import predict

    layout = candidate.deployment.layout
    prompt, output = load(candidate, job)
    return predict(
        model, machine, backend=candidate.backend, engine_version=candidate.engine_version,
        quantization=candidate.quantization, tensor_parallel=layout.tensor, pipeline_parallel=layout.pipeline,
        data_parallel=layout.data, kv_dtype=candidate.kv_dtype, input_tokens=prompt, output_tokens=output,
        concurrency=concurrency,
    )  # fmt: skip


def speed_object(model: ModelSpec, machine: Machine, candidate: Judged,
                 job: Job | None = None) -> dict[str, Any]:  # fmt: skip
    """`speed` of the JSON answer: at the concurrency asked for, with the load it holds for."""
    found = speed(model, machine, candidate, candidate.concurrency, job)
    prompt, output = load(candidate, job)
    return {
        **{name: _rounded(values) for name, values in found.to_dict().items()},
        "at_most": found.at_most, "input_tokens": prompt, "output_tokens": output,
        "concurrency": candidate.concurrency,
    }  # fmt: skip


def cost_object(model: ModelSpec, machine: Machine, candidate: Judged, rent: Rent,
                job: Job | None = None) -> dict[str, Any]:  # fmt: skip
    """`cost` of the JSON answer: renting the cards named, and what their output costs when they are busy."""
    busy = speed(model, machine, candidate, None, job).output_tokens_per_s.likely
    hourly = rent.usd_per_hour
    return {
        **rent_object(rent), "tokens_per_s_at_full_load": round(busy, 1),
        "usd_per_mtok_output": None if hourly is None else round(hourly / 3600 / busy * 1e6, 4),
    }  # fmt: skip


def rent_object(rent: Rent) -> dict[str, Any]:
    """A rent as JSON has it: the price of the cards named, and the instance that they are a part of."""
    whole = rent.whole_usd_per_hour
    return {**rent._asdict(), "instance_usd_per_hour": None if whole is None else round(whole, 6)}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}
