"""What to run on the cards at hand: engine and release, quantization, layout, command, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import lazy

if TYPE_CHECKING:
    from memserve.plan.checking import check as check
    from memserve.plan.described import Checkpoint as Checkpoint
    from memserve.plan.described import Verdict as Verdict
    from memserve.plan.library import best as best
    from memserve.plan.library import candidates as candidates
    from memserve.plan.plan import Candidate as Candidate
    from memserve.plan.plan import Plan as Plan

_HOMES = {
    "best": "library", "candidates": "library", "check": "checking",
    "Candidate": "plan", "Checkpoint": "described", "Plan": "plan", "Verdict": "described",
}  # fmt: skip
__all__ = sorted(_HOMES)
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)
