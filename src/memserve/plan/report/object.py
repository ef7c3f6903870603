"""The JSON answer: one object, schema 1."""

import sys
from typing import Any

from memserve.plan.answer import Answer
from memserve.plan.plan import Plan, machine_object, model_object

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


def write_json(answer: dict[str, Any]) -> None:
    """One object on stdout."""
    import json

    sys.stdout.write(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n")
