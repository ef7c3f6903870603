"""The seam to `memserve.speed`: how fast and how dear a candidate is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from memserve import registry
from memserve.engines import installed
from memserve.engines.backend import Provider
from memserve.engines.deployment import Deployment
from memserve.engines.memory import Assumption
from memserve.errors import InvalidInput
from memserve.hardware.machine import Machine, Rent
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import Candidate, Checkpoint, Judged, Verdict
from memserve.plan.plan import Plan
from memserve.plan.query import DEFAULT_CONTEXT, SHORT, Query
from memserve.speed.result import Range, Speed

if TYPE_CHECKING:
    from memserve.plan.job import Job
    from memserve.speed.prices import Price


def context_of(model: ModelSpec, query: Query) -> int:
    """The context that is planned for."""
    if query.context is not None:
        return query.context
    if query.job is not None:
        return query.job.context
    return min(model.max_context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)


def hosted(name: str, backend: str | None) -> ModelSpec | None:
    """A model that is known by its price alone: no shapes; None where no provider lists it."""
    local = installed.plans_locally(backend)
    found = price(name, None if local else backend)
    if found is None and local:
        return None
    source = found.source if found else f"whatever {backend} serves"
    most = found.most_input if found else None
    return ModelSpec(name, "", "", (), (), (), max_context=most, source=source)


def price(model: str, backend: str | None) -> Price | None:
    """The listed price of a model."""
    from memserve.speed import prices

    return prices.of(model, backend)


OF_CARDS = ("objective", "engine_version", "quantization", *SHORT.values(), "kv_dtype", "headroom", "offload",
            "trust_remote_code")  # fmt: skip
"""Options of a query that say how cards hold a model."""


def candidates(model: ModelSpec, query: Query) -> Iterator[Candidate]:
    """The provider that was asked for, or those that list the model; it heeds nothing that is of cards."""
    short = {full: name for name, full in SHORT.items()}
    asked = [short.get(name, name) for name in OF_CARDS if getattr(query, name) != getattr(Query, name)]
    if asked:
        said = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise InvalidInput(f"{model.id} is a provider's to run, and takes no card: leave {said} out")
    if not installed.plans_locally(query.backend):
        yield candidate(str(query.backend), model, query)
    elif not model.blocks:
        found = price(model.id, None)
        if found is not None:
            from memserve.speed import prices

            own = found.provider in registry.names()
            yield candidate(found.provider if own else prices.others(), model, query)


def candidate(backend: str, model: ModelSpec, query: Query) -> Candidate:
    """One provider that may serve the model: whether key and quota are there shows at the first call."""
    deployment = Deployment(
        backend=backend, engine_version="", dtype=model.dtype, context=context_of(model, query),
        concurrency=query.concurrency,
    )  # fmt: skip
    found, verdict = registry.find(backend), Verdict("runs")
    wanted = query.context or (query.job.workload.prompt_tokens if query.job else 0)
    if model.blocks and isinstance(found, Provider) and found.closed and price(model.id, backend) is None:
        reason = f"{backend} serves its maker's models only, and {model.id} is none that it lists"
        verdict = Verdict("refused", "closed-provider", reason, "memserve's list of prices")
    elif not model.blocks and model.max_context and wanted > model.max_context:
        reason = f"{model.id} takes {model.max_context} tokens of a prompt and {wanted:.0f} are wanted"
        verdict = Verdict("refused", "context", reason, "memserve's list of prices")
    return Candidate(deployment, verdict, Checkpoint(model.id, "none", "the provider's"), remote=True)


def plan(chosen: Candidate, model: ModelSpec, machine: Machine, job: Job | None = None) -> Plan:
    """The provider's plan: nothing to install or start, and what it costs."""
    from memserve.engines.launch import Launch
    from memserve.missing import install_line

    found = price(model.id, chosen.backend) or price(model.id, None)
    usual, found = found, found.of_prompt(job.workload.prompt_tokens) if found and job else found
    launch = Launch(install_line(), ())
    told = "no price of it is listed: give your own" if found is None else f"priced by {found.source}"
    if found is not usual and usual:
        told += f", for prompts of more than {dict(usual.long)['above']:,} tokens"
    served = f"{chosen.backend} serves {model.id} over HTTP"
    if found is not None and found.provider not in registry.names():
        served = f"{found.provider} serves {model.id}: reached through {chosen.backend} with its --base-url"
    return Plan(
        model=model, machine=machine, deployment=chosen.deployment, verdict=chosen.verdict,
        checkpoint=chosen.checkpoint, launch=launch, cost=provider_cost(found), remote=True,
        workload=job.by(found) if job and found else None,
        reasons=(chosen.reason or f"{served}; {told}",),
    )  # fmt: skip


def provider_cost(found: Price | None) -> dict[str, Any] | None:
    """`cost` of the JSON answer for a provider."""
    if found is None:
        return None
    return {
        "usd_per_mtok_input": found.input, "usd_per_mtok_output": found.output,
        "usd_per_mtok_cached": found.cached, "usd_per_mtok_batch_input": found.batch_input,
        "usd_per_mtok_batch_output": found.batch_output, "source": found.source, "date": found.date,
    }  # fmt: skip


INPUT_TOKENS = 1024
OUTPUT_TOKENS = 256
"""The load of the figures where no workload is named."""
TEXT_TOKENS = 512
"""Of a text that an embedder reads, where no workload is named."""


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
        concurrency=concurrency, host_layers=candidate.deployment.host_layers,
    )  # fmt: skip


def texts(model: ModelSpec, machine: Machine, candidate: Judged, job: Job | None = None) -> Range:
    """Texts a second of an embedder or a reranker that is kept busy."""
    from memserve.speed.roofline.forecast import texts_per_s

    layout = candidate.deployment.layout
    stored = "fp32" if candidate.dtype == "float32" else candidate.quantization
    return texts_per_s(
        model, machine, backend=candidate.backend, engine_version=candidate.engine_version,
        quantization=stored, tensor_parallel=layout.tensor, pipeline_parallel=layout.pipeline,
        data_parallel=layout.data, input_tokens=text_tokens(candidate, job),
    )  # fmt: skip


def text_tokens(candidate: Judged, job: Job | None) -> float:
    """Tokens of a text that figures are given for."""
    return job.workload.prompt_tokens if job else min(TEXT_TOKENS, candidate.context)


def speed_object(model: ModelSpec, machine: Machine, candidate: Judged,
                 job: Job | None = None) -> dict[str, Any]:  # fmt: skip
    """`speed` of the JSON answer, with the load it holds for; what the model does not do is null."""
    if model.embeds:
        rate = _rounded(texts(model, machine, candidate, job).to_dict())
        return {
            "ttft_ms": None, "tpot_ms": None, "output_tokens_per_s": None, "texts_per_s": rate,
            "at_most": True, "input_tokens": text_tokens(candidate, job), "output_tokens": None,
            "concurrency": candidate.concurrency,
        }  # fmt: skip
    found = speed(model, machine, candidate, candidate.concurrency, job)
    prompt, output = load(candidate, job)
    return {
        **{name: _rounded(values) for name, values in found.to_dict().items()}, "texts_per_s": None,
        "at_most": found.at_most, "input_tokens": prompt, "output_tokens": output,
        "concurrency": candidate.concurrency,
    }  # fmt: skip


def cost_object(model: ModelSpec, machine: Machine, candidate: Judged, rent: Rent,
                job: Job | None = None) -> dict[str, Any]:  # fmt: skip
    """`cost` of the JSON answer: renting the cards named, and what their tokens cost when they are busy."""
    if model.embeds:
        rate = texts(model, machine, candidate, job).likely * text_tokens(candidate, job)
        return {**rent_object(rent), "usd_per_mtok_input": _usd_per_mtok(rent, rate),
                "usd_per_mtok_output": None, "tokens_per_s_at_full_load": None}  # fmt: skip
    busy = speed(model, machine, candidate, None, job).output_tokens_per_s.likely
    return {**rent_object(rent), "usd_per_mtok_input": None, "usd_per_mtok_output": _usd_per_mtok(rent, busy),
            "tokens_per_s_at_full_load": round(busy, 1)}  # fmt: skip


def _usd_per_mtok(rent: Rent, tokens_per_s: float) -> float | None:
    """Dollars per million tokens, where an hour's price is known."""
    return None if rent.usd_per_hour is None else round(rent.usd_per_hour / 3600 / tokens_per_s * 1e6, 6)


def assumptions(model: ModelSpec, candidate: Judged, job: Job | None) -> tuple[Assumption, ...]:
    """The load that figures are given for, where nobody named one."""
    if job is not None:
        return ()
    why = "memserve's load where no --workload is named"
    if model.embeds:
        return (Assumption("input_tokens", text_tokens(candidate, None), why),)
    prompt, output = load(candidate, None)
    return Assumption("input_tokens", prompt, why), Assumption("output_tokens", output, why)


def rent_object(rent: Rent) -> dict[str, Any]:
    """A rent as JSON has it: the price of the cards named, and the instance that they are a part of."""
    whole = rent.whole_usd_per_hour
    return {**rent._asdict(), "instance_usd_per_hour": None if whole is None else round(whole, 6)}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}
