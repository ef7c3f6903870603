"""Plans in a part of each card: with some of it kept free (`--headroom`), or beside something else."""

from dataclasses import replace
from functools import partial

from memserve.engines import installed
from memserve.engines.deployment import Deployment
from memserve.hardware.machine import Card, Machine
from memserve.model.spec import ModelSpec
from memserve.plan.answer import Answer, answer
from memserve.plan.plan import Plan
from memserve.plan.query import Query
from memserve.plan.search.checkpoints import loaded

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
    return replace(plan, deployment=deployment, verdict=verdict, launch=launch)
