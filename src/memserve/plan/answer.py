"""The whole answer: the plan, its alternatives, the rejected, and the nearest miss where nothing fits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any

from memserve.engines import installed
from memserve.engines.deployment import Deployment
from memserve.engines.memory import assumptions
from memserve.hardware import instances
from memserve.hardware.machine import Card, Machine
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import Candidate, loaded
from memserve.plan.page import Shown
from memserve.plan.plan import Plan, machine_object, model_object
from memserve.plan.query import Query
from memserve.plan.search import pricing
from memserve.plan.search.choice import Rank, ranked
from memserve.plan.search.judging import learnt_here
from memserve.plan.search.offers import consider, late, on_time
from memserve.plan.search.reasons import instead, measured, nearest, reasons_for, remedies

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from memserve.engines.backend import Plannable
    from memserve.engines.launch import Launch
    from memserve.plan.page import Section
    from memserve.plan.search.choice import Trade

FEW = 5
"""Alternatives that are worth reading unless all were asked for."""


@dataclass(frozen=True, repr=False)
class Answer(Shown):
    """What one call found. `plan` is None where nothing fits; then `closest` is set."""

    model: ModelSpec
    machine: Machine
    query: Query
    plan: Plan | None
    closest: Plan | None
    alternatives: tuple[Plan, ...]
    rejected: tuple[Candidate, ...]
    remedies: tuple[str, ...] = ()
    trades: tuple[Trade, ...] = ()
    """What no other candidate beats in all of throughput, latency and cost; where an objective asks."""

    @property
    def fits(self) -> bool:
        """There is a plan."""
        return self.plan is not None

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterable[Section]:
        """The answer for a person."""
        from memserve.plan.sections import of_answer

        return of_answer(self, why=why, everything=everything)

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON has it."""

        return answer_object(self)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plan alone, or nothing."""
        return () if self.plan is None else (self.plan,)


def answer(model: ModelSpec, machine: Machine, query: Query, *, everything: bool = False) -> Answer:
    """Judge every candidate and choose."""
    query = query.of_model(model)
    found = consider(model, machine, query, thorough=everything)
    best = ranked(found, model, machine, query)
    rejected = tuple(candidate for candidate in found if not candidate.fits)
    maker = Maker(model, machine, query, found)
    if not best:
        closest = nearest(rejected)
        missed = maker.plan(measured(closest, model, machine)) if closest else None
        cures = remedies(model, machine, query, closest) if closest else ()
        return Answer(model, machine, query, None, missed, (), rejected, tuple(cures))
    others = best[1:] if everything else list(differing(best))[:FEW]
    alternatives = tuple(maker.plan(candidate, brief=True) for candidate in others)
    plan = replace(maker.plan(best[0]), alternatives=alternatives, rejected=rejected)
    trades = traded(best, model, machine, query)
    return Answer(model, machine, query, plan, None, alternatives, rejected, trades=trades)


def traded(best: Sequence[Candidate], model: ModelSpec, machine: Machine, query: Query) -> tuple[Trade, ...]:
    """What an objective other than quality weighs."""
    if query.objective == "quality" or model.embeds:
        return ()
    from memserve.plan.search.choice import front

    return front(best, model, machine, query)


def checked(plan: Plan, asked: Query | None = None) -> Answer:
    """The verdict on a command, and on what is asked of it, in the shape of an answer."""
    from memserve.plan.checking import alike, cures

    backend = installed.named(plan.backend)
    launch = backend.launch.launch(plan.model, plan.checkpoint.id, plan.machine, plan.deployment)
    largest = backend.memory.largest_context(plan.model, plan.machine, plan.deployment)
    install = launch.install if alike(plan, launch.command) else ""
    given = replace(launch, command=tuple(plan.command), env=plan.env, notes=(), install=install)
    plan = replace(plan, launch=given, largest_context=max(largest, plan.context * plan.fits))
    wanted = (asked or Query()).of_model(plan.model)
    starts, plan = plan.fits, kept_to(plan, wanted)
    open_query = Query(wanted.context or plan.context, max(plan.concurrency, wanted.concurrency),
                       ttft=wanted.ttft, tpot=wanted.tpot)  # fmt: skip
    query = replace(open_query, backend=plan.backend)
    if plan.fits:
        return Answer(plan.model, plan.machine, query, plan, None, (), ())
    missed = Candidate(plan.deployment, plan.verdict, plan.checkpoint)
    slow = late(plan, plan.model, plan.machine, wanted) if plan.rule in wanted.answer_ms else {}
    words = " ".join(f"--{name} {ceil(ms)}" for name, ms in slow.items())
    changes = [f"{words}: it answers so fast"] if words else []
    changes += () if starts else cures(plan, launch.command)
    told = (*changes, *(() if plan.rule == "headroom" else instead(plan.model, plan.machine, open_query)))
    return Answer(plan.model, plan.machine, query, None, plan, (), (missed,), told)


def kept_to(plan: Plan, query: Query) -> Plan:
    """A command that starts, judged by what else is asked of it: tokens, requests, memory, times, a job."""
    model, machine, held = plan.model, plan.machine, plan.footprint
    if not plan.fits or held is None:
        return plan
    made = Candidate(plan.deployment, plan.verdict, plan.checkpoint)
    verdict = on_time(made, model, machine, query).verdict
    free, copies, job = held.free / machine.card.memory, plan.data_parallel, query.job
    longest = max(query.context or 0, job.workload.prompt_tokens + job.workload.output_tokens if job else 0)
    if longest > plan.context:
        why = f"takes {plan.context} tokens of a request and {longest:.0f} are wanted"
        verdict = replace(verdict, outcome="refused", rule="context", reason=why)
    elif held.max_concurrency * copies < query.concurrency > 1:
        why = f"holds {held.max_concurrency * copies:.1f} requests of {plan.context} tokens at once"
        why += f" and {query.concurrency} are wanted"
        verdict = replace(verdict, outcome="out_of_memory", rule="concurrency", reason=why)
    elif free < query.headroom:
        why = f"leaves {max(0.0, free):.0%} of each card free and {query.headroom:.0%} are wanted"
        verdict = replace(verdict, outcome="refused", rule="headroom", reason=why)
    if not verdict.fits:
        return replace(plan, verdict=verdict, reasons=(verdict.reason, *plan.reasons))
    if job is None and not query.answer_ms:
        return plan
    rent = instances.rent(machine)
    return replace(
        plan, speed=pricing.speed_object(model, machine, made, job),
        cost=pricing.cost_object(model, machine, made, rent, job),
        workload=job.on(model, machine, made, rent.usd_per_hour) if job else None,
        assumed=(*plan.assumed, *pricing.assumptions(model, made, job)),
    )  # fmt: skip


def differing(best: Sequence[Candidate]) -> Iterator[Candidate]:
    """The best of each other engine and quantization."""
    seen = {(best[0].backend, best[0].quantization)}
    for candidate in best[1:]:
        kind = (candidate.backend, candidate.quantization)
        if kind not in seen:
            seen.add(kind)
            yield candidate


class Maker:
    """Turns candidates into plans: launch, largest context, speed, cost, reasons."""

    def __init__(self, model: ModelSpec, machine: Machine, query: Query,
                 found: Sequence[Candidate]) -> None:  # fmt: skip
        self.model, self.machine, self.query, self.found = model, machine, query, found
        self.rank = Rank(model, machine, query)
        self.rent = instances.rent(machine)

    def _launch(self, backend: Plannable, held: ModelSpec, candidate: Candidate) -> Launch:
        """How it is started; with a repository's code only where that is needed and consented to."""
        deployment, known = candidate.deployment, installed.knows(backend, held.architecture)
        file = candidate.quantization.startswith("gguf")
        needed = held.remote_code and not known
        tokenizer = held.tokenizer_code and not needed and not file
        if (needed or tokenizer) and self.query.trust_remote_code:
            deployment = replace(deployment, options=(*deployment.options, ("trust-remote-code", "true")))
        launch = backend.launch.launch(held, candidate.checkpoint.id, self.machine, deployment)
        if not needed and not tokenizer:
            return launch
        what = "the right tokenizer needs" if tokenizer else "needs"
        note = f"{what} code from the model's repository: read it, then plan with --trust-remote-code"
        if self.query.trust_remote_code:
            note = "runs code from the model's repository"
        return replace(launch, notes=(*launch.notes, note))

    def plan(self, candidate: Candidate, *, brief: bool = False) -> Plan:
        """A candidate with everything that one needs to start it; `brief` leaves out what takes long."""
        if candidate.remote:
            return pricing.plan(candidate, self.model, self.machine, self.query.job)
        backend = installed.named(candidate.backend)
        job = self.query.job
        held = loaded(self.model, candidate.checkpoint)
        deployment = candidate.deployment
        launch = self._launch(backend, held, candidate)
        asked = candidate.footprint is not None and not brief
        largest = backend.memory.largest_context(held, self.machine, deployment) if asked else None
        plan = Plan(
            model=self.model, machine=self.machine, deployment=deployment, verdict=candidate.verdict,
            checkpoint=candidate.checkpoint, launch=launch, largest_context=largest,
            assumed=(
                *assumptions(backend.memory, held, self.machine, deployment),
                *learnt_here(held, self.machine, deployment),
            ),
        )  # fmt: skip
        reasons = reasons_for(plan, self.rank, self.found) if not brief else launch.notes
        if not candidate.fits:
            return replace(plan, reasons=(candidate.reason, *reasons))
        return replace(
            plan, reasons=reasons, speed=pricing.speed_object(held, self.machine, candidate, job),
            cost=pricing.cost_object(held, self.machine, candidate, self.rent, job),
            workload=job.on(held, self.machine, candidate, self.rent.usd_per_hour) if job else None,
            assumed=(*plan.assumed, *pricing.assumptions(held, candidate, job)),
        )  # fmt: skip


SCHEMA = 1


def answer_object(answer: Answer) -> dict[str, Any]:
    """The whole answer."""
    return {
        "schema": SCHEMA,
        "model": model_object(answer.model), "machine": machine_object(answer.machine),
        "fits": answer.plan is not None,
        "plan": None if answer.plan is None else answer.plan.bare(),
        "closest": None if answer.closest is None else missed_plan(answer.closest),
        "remedies": list(answer.remedies),
        "alternatives": [plan.bare() for plan in answer.alternatives],
        "pareto": [trade.to_dict() for trade in answer.trades],
        "rejected": [candidate.to_dict() for candidate in answer.rejected],
    }  # fmt: skip


def missed_plan(plan: Plan) -> dict[str, Any]:
    """A plan that does not fit, and why."""
    return {**plan.bare(), "rule": plan.rule, "reason": plan.reason, "source": plan.source}


STEPS = 20
"""Budgets that are tried, each a tenth below the last."""


def smaller(card: Card, share: float) -> Card:
    """A card without a share of its memory."""
    return replace(card, memory=max(1, int(card.memory * (1 - share)))) if share else card


def answer_in_part(model: ModelSpec, machine: Machine, query: Query, kept: float, *,
                   everything: bool = False, others: bool = False) -> Answer:  # fmt: skip
    """The answer on what is left when a share of each card is kept, told for the whole cards.

    `others` use what is kept: then the budget is as small as it was judged, and stands in the command.
    """
    rest = replace(machine, card=smaller(machine.card, kept))
    found = answer(model, rest, query, everything=everything)
    rest_of = partial(_on, machine=machine, kept=kept, budgets=() if others else (None, 1 - kept))
    alternatives = tuple(map(rest_of, found.alternatives))
    plan = found.plan and replace(rest_of(found.plan), alternatives=alternatives)
    return replace(found, plan=plan, alternatives=alternatives, machine=machine)


def _on(plan: Plan, machine: Machine, kept: float, budgets: tuple[float | None, ...]) -> Plan:
    """The plan on the whole cards, with the first of the budgets that leaves free what is kept.

    What a budget is a share of differs by engine: of the card, of what the weights leave.
    """
    plan, bytes_kept = replace(plan, machine=machine), kept * machine.card.memory
    if plan.footprint is None:
        return plan
    given = plan.footprint.usable / machine.card.memory
    for share in (*budgets, *(given * 0.9**step for step in range(STEPS))):
        budget = plan.deployment.utilization if share is None else int(share * 1000) / 1000
        made = with_deployment(plan, replace(plan.deployment, utilization=budget))
        if made.fits and made.footprint is not None and made.footprint.free >= bytes_kept:
            return made
    return plan


def with_deployment(plan: Plan, deployment: Deployment) -> Plan:
    """The plan with another budget, accounted and launched anew."""
    from memserve.plan.search.judging import held

    backend, model = installed.named(plan.backend), loaded(plan.model, plan.checkpoint)
    launch = backend.launch.launch(model, plan.checkpoint.id, plan.machine, deployment)
    verdict = held(backend, model, plan.machine, deployment)
    was, now = (
        assumptions(backend.memory, model, plan.machine, one) for one in (plan.deployment, deployment)
    )
    assumed = (*now, *(one for one in plan.assumed if one not in was))
    return replace(plan, deployment=deployment, verdict=verdict, launch=launch, assumed=assumed)
