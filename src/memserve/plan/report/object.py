"""The JSON answer: one object, schema 1."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from memserve.plan.nodes import steps

if TYPE_CHECKING:
    from memserve.hardware.machine import Machine
    from memserve.model.spec import ModelSpec
    from memserve.plan.answer import Answer
    from memserve.plan.plan import Plan

SCHEMA = 1
GIB = 1024**3


def model_object(model: ModelSpec) -> dict[str, Any]:
    """Who the model is."""
    return {
        "id": model.id, "architecture": model.architecture or None,
        "parameters": model.parameters if model.blocks else None,
        "active_parameters": model.active_parameters if model.blocks else None,
        "source": model.source, "notes": list(model.notes),
    }  # fmt: skip


def machine_object(machine: Machine) -> dict[str, Any]:
    """What it is planned for."""
    return {
        "nodes": machine.nodes, "cards_per_node": machine.cards_per_node, "card": machine.card.name,
        "memory_gib_per_card": round(machine.card.memory / GIB, 2), "origin": machine.origin,
        "notes": list(machine.notes),
    }  # fmt: skip


def answer_object(answer: Answer) -> dict[str, Any]:
    """The whole answer."""
    return {
        "schema": SCHEMA,
        "model": model_object(answer.model), "machine": machine_object(answer.machine),
        "fits": answer.plan is not None,
        "plan": None if answer.plan is None else bare_plan(answer.plan),
        "closest": None if answer.closest is None else missed_plan(answer.closest),
        "remedies": list(answer.remedies),
        "alternatives": [bare_plan(plan) for plan in answer.alternatives],
        "pareto": [trade.to_dict() for trade in answer.trades],
        "rejected": [candidate.to_dict() for candidate in answer.rejected],
    }  # fmt: skip


def missed_plan(plan: Plan) -> dict[str, Any]:
    """A plan that does not fit, and why."""
    return {**bare_plan(plan), "rule": plan.rule, "reason": plan.reason, "source": plan.source}


def plan_object(plan: Plan) -> dict[str, Any]:
    """One plan, with its model and machine."""
    return {
        "model": model_object(plan.model), "machine": machine_object(plan.machine), **bare_plan(plan),
    }  # fmt: skip


def bare_plan(plan: Plan) -> dict[str, Any]:
    """One plan as it stands inside the answer."""
    layout = None if plan.remote else plan.deployment.layout
    return {
        "backend": plan.backend, "engine_version": plan.engine_version or None,
        "quantization": plan.quantization, "dtype": plan.dtype,
        "tensor_parallel": layout and layout.tensor,
        "pipeline_parallel": layout and layout.pipeline,
        "data_parallel": layout and layout.data,
        "expert_parallel": layout and layout.expert,
        "kv_dtype": plan.kv_dtype, "context": plan.context, "largest_context": plan.largest_context,
        "concurrency": plan.concurrency,
        "checkpoint": plan.checkpoint.id, "checkpoint_source": plan.checkpoint.source,
        "make_checkpoint": plan.checkpoint.make,
        "install": plan.install, "command": plan.command, "env": plan.env,
        "nodes": [step.to_dict() for step in steps(plan)],
        "fits": plan.fits, "outcome": plan.outcome,
        "memory_gib_per_card": plan.memory_gib_per_card,
        "kv_cache_tokens": plan.kv_cache_tokens, "max_concurrency": plan.max_concurrency,
        "speed": plan.speed, "cost": plan.cost, "workload": plan.workload, "reasons": list(plan.reasons),
    }  # fmt: skip


def write_json(answer: dict[str, Any]) -> None:
    """One object on stdout."""
    import json

    sys.stdout.write(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n")
