"""HTTP providers as candidates: no memory, no layout, a price per token where one is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from memserve import registry
from memserve.engines import installed
from memserve.engines.backend import Provider
from memserve.engines.deployment import Deployment
from memserve.hardware.machine import Machine
from memserve.plan.candidate import Candidate, Checkpoint, Verdict
from memserve.plan.job import Job
from memserve.plan.plan import Plan
from memserve.plan.query import Query
from memserve.speed.prices import Price

if TYPE_CHECKING:
    from memserve.model.spec import ModelSpec

DEFAULT_CONTEXT = 8192


def hosted(name: str, backend: str | None) -> ModelSpec | None:
    """A model that is known by its price alone: no shapes; None where no provider lists it."""
    from memserve.model.spec import ModelSpec

    local = installed.plans_locally(backend)
    found = price(name, None if local else backend)
    if found is None and local:
        return None
    source = found.source if found else f"whatever {backend} serves"
    return ModelSpec(name, "", "", (), (), (), source=source)


def price(model: str, backend: str | None) -> Price | None:
    """The listed price of a model."""
    from memserve.speed import prices

    return prices.of(model, backend)


def candidates(model: ModelSpec, query: Query) -> Iterator[Candidate]:
    """The provider that was asked for, or those that list the model."""
    if not installed.plans_locally(query.backend):
        yield candidate(str(query.backend), model, query)
    elif not model.blocks:
        found = price(model.id, None)
        if found is not None:
            yield candidate(found.provider, model, query)


def candidate(backend: str, model: ModelSpec, query: Query) -> Candidate:
    """One provider that may serve the model: whether key and quota are there shows at the first call."""
    context = query.context or min(model.max_context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
    deployment = Deployment(
        backend=backend, engine_version="", dtype=model.dtype, context=context, concurrency=query.concurrency
    )
    found, verdict = registry.find(backend), Verdict("runs")
    if model.blocks and isinstance(found, Provider) and found.closed and price(model.id, backend) is None:
        reason = f"{backend} serves its maker's models only, and {model.id} is none that it lists"
        verdict = Verdict("refused", "closed-provider", reason, "memserve's list of prices")
    return Candidate(deployment, verdict, Checkpoint(model.id, "none", "the provider's"), remote=True)


def plan(chosen: Candidate, model: ModelSpec, machine: Machine, job: Job | None = None) -> Plan:
    """The provider's plan: nothing to install or start, and what it costs."""
    from memserve.engines.launch import Launch

    found = price(model.id, chosen.backend)
    launch = Launch("pip install memserve", ())
    told = "no price of it is listed: give your own" if found is None else f"priced by {found.source}"
    return Plan(
        model=model, machine=machine, deployment=chosen.deployment, verdict=chosen.verdict,
        checkpoint=chosen.checkpoint, launch=launch, cost=cost_object(found), remote=True,
        workload=job.by(found) if job and found else None,
        reasons=(chosen.reason or f"{chosen.backend} serves {model.id} over HTTP; {told}",),
    )  # fmt: skip


def cost_object(found: Price | None) -> dict[str, Any] | None:
    """`cost` of the JSON answer for a provider."""
    if found is None:
        return None
    return {
        "usd_per_mtok_input": found.input, "usd_per_mtok_output": found.output,
        "usd_per_mtok_cached": found.cached, "usd_per_mtok_batch_input": found.batch_input,
        "usd_per_mtok_batch_output": found.batch_output, "source": found.source, "date": found.date,
    }  # fmt: skip
