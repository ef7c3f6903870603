"""Rules first, then memory: the verdict on one deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve.engines.rules.judge import Judge
from memserve.plan.described import Verdict

if TYPE_CHECKING:
    from memserve.engines.backend import Plannable
    from memserve.engines.deployment import Deployment
    from memserve.engines.memory import Footprint
    from memserve.engines.rules.judge import Refusal
    from memserve.hardware.machine import Machine
    from memserve.model.spec import ModelSpec


def assess(room: Plannable, model: ModelSpec, machine: Machine, deployment: Deployment) -> Verdict:
    """Would this deployment start here? Memory is stated even where a rule refuses."""
    refusal = Judge(room.rules, deployment.engine_version, model, machine)(deployment)
    footprint = room.memory.account(model, machine, deployment)
    return refused(refusal, footprint) if refusal else weighed(footprint, deployment)


def refused(refusal: Refusal, footprint: Footprint | None = None) -> Verdict:
    """A rule's verdict."""
    return Verdict("refused", refusal.rule, refusal.reason, refusal.source, footprint)


def weighed(footprint: Footprint, deployment: Deployment) -> Verdict:
    """Memory's verdict."""
    if footprint.outcome == "runs":
        return Verdict("runs", footprint=footprint)
    reason = "; ".join(footprint.reasons) or "the card's memory does not hold it"
    source = f"memserve's account of {deployment.backend} {deployment.engine_version}"
    return Verdict(footprint.outcome, "memory", reason, source, footprint)
