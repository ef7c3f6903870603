"""Why this plan: what better choice was refused, what was assumed, what is lost."""

from collections.abc import Iterator, Sequence

from memserve.engines import installed
from memserve.engines.rules.judge import offered
from memserve.plan.candidate import Candidate
from memserve.plan.losses import weight_loss
from memserve.plan.plan import Plan
from memserve.plan.query import Query


def reasons_for(plan: Plan, query: Query, rejected: Sequence[Candidate]) -> tuple[str, ...]:
    """Sentences for a reader, the weightiest first."""
    said = (
        *_assumed(plan), *_why_not_better(plan, rejected), *_dtype(plan, rejected),
        *_release(plan, rejected), *_checkpoint(plan), *_concessions(plan),
        *_context(plan, query), *(plan.launch.notes if plan.launch else ()),
    )  # fmt: skip
    return tuple(dict.fromkeys(said))


def _assumed(plan: Plan) -> tuple[str, ...]:
    return (*plan.model.notes, *plan.machine.notes)


def _why_not_better(plan: Plan, rejected: Sequence[Candidate]) -> Iterator[str]:
    """For each less lossy quantization of the same release: why it is not this one."""
    loss = weight_loss(plan.checkpoint)
    better: dict[str, Candidate] = {}
    for candidate in rejected:
        same = (candidate.backend, candidate.engine_version) == (plan.backend, plan.engine_version)
        if same and weight_loss(candidate.checkpoint) < loss:
            known = better.get(candidate.quantization)
            if known is None or _likeness(candidate, plan) >= _likeness(known, plan):
                better[candidate.quantization] = candidate
    for quantization, candidate in better.items():
        yield f"not {'16 bit' if quantization == 'none' else quantization}: {candidate.reason}"


def _dtype(plan: Plan, rejected: Sequence[Candidate]) -> Iterator[str]:
    """What the release refuses to compute in on this card."""
    for candidate in rejected:
        same = (candidate.backend, candidate.engine_version) == (plan.backend, plan.engine_version)
        other = candidate.dtype != plan.dtype and candidate.rule.startswith(("bf16", "fp16"))
        if same and other:
            yield f"computes in {plan.dtype}: {candidate.reason}"


def _likeness(candidate: Candidate, plan: Plan) -> tuple[bool, int]:
    """The refusal that tells most is that of the plan's own layout, else of the widest."""
    layout, chosen = candidate.deployment.layout, plan.deployment.layout
    return (layout.tensor, layout.pipeline) == (chosen.tensor, chosen.pipeline), layout.cards


def _release(plan: Plan, rejected: Sequence[Candidate]) -> Iterator[str]:
    newest = str(offered(installed.named(plan.backend).rules)[0]["version"])
    if newest == plan.engine_version:
        return
    for candidate in rejected:
        if candidate.backend == plan.backend and candidate.engine_version == newest:
            yield candidate.reason
            return


def _checkpoint(plan: Plan) -> Iterator[str]:
    checkpoint = plan.checkpoint
    if checkpoint.make:
        yield f"no {checkpoint.quantization} checkpoint of {plan.model.id} is known: {checkpoint.make}"
    elif checkpoint.online:
        yield f"the engine quantizes {checkpoint.id} to {checkpoint.quantization} while loading it"
    elif checkpoint.id != plan.model.id:
        yield f"checkpoint {checkpoint.id} ({checkpoint.source})"


def _concessions(plan: Plan) -> Iterator[str]:
    deployment = plan.deployment
    for concession in installed.named(plan.backend).rules.get("concessions", ()):
        words = {name: value for name, value in concession.items() if name != "note"}
        if words and all(_same(getattr(deployment, name), value) for name, value in words.items()):
            yield f"to fit: {concession['note']}"
            return


def _same(held: object, asked: object) -> bool:
    return held == asked or (isinstance(held, int) and isinstance(asked, int) and held >= asked > 1)


def _context(plan: Plan, query: Query) -> Iterator[str]:
    largest = plan.largest_context
    if largest and plan.fits:
        chosen = "" if query.context else " (the default: the smaller of 8192 and the model's maximum)"
        chosen = " (the workload's longest request)" if query.job and not query.context else chosen
        yield f"planned for {plan.context} tokens{chosen}; the largest context that fits is {largest}"
    taken, there = plan.deployment.layout.cards, plan.machine.cards
    if plan.fits and taken < there:
        yield f"takes {taken} of {there} cards: the others are free for another copy"
