"""The seam to `memserve.speed`: how fast and how dear a candidate is."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memserve.hardware.machine import Machine
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


def cost_object(model: ModelSpec, machine: Machine, candidate: Judged,
                rented: tuple[float | None, str], job: Job | None = None) -> dict[str, Any]:  # fmt: skip
    """`cost` of the JSON answer: renting the machine, and what its output costs when it is kept busy."""
    hourly, source = rented
    busy = speed(model, machine, candidate, None, job).output_tokens_per_s.likely
    per_token = None if hourly is None else round(hourly / 3600 / busy * 1e6, 4)
    return {
        "usd_per_hour": hourly, "usd_per_mtok_output": per_token, "source": source,
        "tokens_per_s_at_full_load": round(busy, 1),
    }  # fmt: skip


@cache
def _offer(card: str, cards: int, nodes: int) -> tuple[float | None, str]:
    from memserve.hardware import Machine, instances
    from memserve.hardware import card as card_named

    offer = instances.cheapest(Machine(card_named(card), cards, nodes))
    if offer is None:
        return None, "no instance with these cards is priced in memserve's data"
    found, count = offer
    hourly = found.usd_per_hour
    told = f"{count} x {found.name} ({found.cloud} {found.region}, {found.date}): {found.source}"
    return None if hourly is None else round(hourly * count, 4), told


def rent(machine: Machine) -> tuple[float | None, str]:
    """Dollars per hour for the machine and where that was read; None where nobody sells it."""
    if machine.usd_per_hour is not None:
        return machine.usd_per_hour, machine.price_source
    return _offer(machine.card.name, machine.cards_per_node, machine.nodes)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}
