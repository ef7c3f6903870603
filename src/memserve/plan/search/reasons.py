"""Why this plan: what better choice was refused, what was assumed, what is lost."""

from collections.abc import Iterator, Sequence

from memserve.engines import installed
from memserve.engines.rules.judge import offered
from memserve.plan.candidate import Candidate
from memserve.plan.losses import steps, weight_loss
from memserve.plan.plan import Plan
from memserve.plan.query import Query
from memserve.plan.search.choice import Rank
from memserve.plan.search.offers import CARDS_OF_A_NODE, unoffered


def reasons_for(plan: Plan, rank: Rank, found: Sequence[Candidate]) -> tuple[str, ...]:
    """Sentences for a reader, the weightiest first; `found` is all that was considered."""
    rejected = [one for one in found if not one.fits]
    said = (
        *_assumed(plan), *_why_not_better(plan, rank, found), *_dtype(plan, rejected),
        *_release(plan, rejected), *_checkpoint(plan), *_concessions(plan),
        *_context(plan, rank.query), *(plan.launch.notes if plan.launch else ()),
    )  # fmt: skip
    return tuple(dict.fromkeys(said))


def _assumed(plan: Plan) -> Iterator[str]:
    yield from (*plan.model.notes, *plan.machine.notes)
    cards, card = plan.machine.cards_per_node, plan.machine.card.name
    if cards > CARDS_OF_A_NODE and cards % CARDS_OF_A_NODE == 0 and not plan.remote:
        spec = f"{plan.machine.cards // CARDS_OF_A_NODE}x{CARDS_OF_A_NODE}x{card}"
        yield f"taken as {cards} cards in one node, which few machines have: say {spec} for nodes"


def _why_not_better(plan: Plan, rank: Rank, found: Sequence[Candidate]) -> Iterator[str]:
    """For each less lossy quantization of the same release: what forbids it, or which preference decided."""
    loss = weight_loss(plan.checkpoint)
    better = (one.quantization for one in found if _same_release(one, plan)
              and weight_loss(one.checkpoint) < loss and one.quantization != plan.quantization)  # fmt: skip
    for quantization in dict.fromkeys(better):
        every = [one for one in found if one.quantization == quantization]
        why = _why_not(plan, rank, every)
        if why:
            yield f"not {'16 bit' if quantization == 'none' else quantization}: {why}"


def _why_not(plan: Plan, rank: Rank, every: Sequence[Candidate]) -> str:
    """Of one quantization: nothing of it fits, or something does and ranks below; empty where unsure."""
    if not any(one.fits for one in every):
        every = [*every, *unoffered(rank.model, rank.machine, rank.query, every[0].quantization)]
    fitting = [one for one in every if one.fits]
    if fitting:
        return f"fits, but ranks below: {rank.because(min(fitting, key=rank), plan)}"
    refused = all(one.outcome == "refused" for one in every)
    fewer = min(steps(weight_loss(one.checkpoint), "auto") for one in every)
    if not refused and fewer >= steps(weight_loss(plan.checkpoint), "auto"):
        return ""  # of equally many bits, with a KV cache that was not tried
    told = max((one for one in every if _same_release(one, plan)), key=lambda one: _likeness(one, plan))
    layout = told.deployment.layout
    return told.reason + ("" if _likeness(told, plan)[1] else f" (tp {layout.tensor} pp {layout.pipeline})")


def _same_release(one: Candidate, plan: Plan) -> bool:
    return (one.backend, one.engine_version) == (plan.backend, plan.engine_version)


def _dtype(plan: Plan, rejected: Sequence[Candidate]) -> Iterator[str]:
    """What the release refuses to compute in on this card."""
    for candidate in rejected:
        other = candidate.dtype != plan.dtype and candidate.rule.startswith(("bf16", "fp16"))
        if other and _same_release(candidate, plan):
            yield f"computes in {plan.dtype}: {candidate.reason}"


def _likeness(candidate: Candidate, plan: Plan) -> tuple[bool, bool, bool, int]:
    """The refusal that tells most is that of the plan's own dtype, layout and cache, else of the widest."""
    layout, chosen = candidate.deployment.layout, plan.deployment.layout
    alike = (layout.tensor, layout.pipeline) == (chosen.tensor, chosen.pipeline)
    cards = layout.tensor * layout.pipeline
    return candidate.dtype == plan.dtype, alike, candidate.kv_dtype == plan.kv_dtype, cards


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
