"""What to run on the cards at hand: engine and release, quantization, layout, command, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import lazy

if TYPE_CHECKING:
    from memserve.plan.answer import Answer as Answer
    from memserve.plan.candidate import Candidate as Candidate
    from memserve.plan.candidate import Checkpoint as Checkpoint
    from memserve.plan.candidate import Verdict as Verdict
    from memserve.plan.checking import check as check
    from memserve.plan.library import best as best
    from memserve.plan.library import candidates as candidates
    from memserve.plan.plan import Plan as Plan
    from memserve.plan.query import PlanOptions as PlanOptions
    from memserve.plan.query import Query as Query
    from memserve.plan.tasks.anywhere import anywhere as anywhere
    from memserve.plan.tasks.comparing import compare as compare
    from memserve.plan.tasks.models import models as models
    from memserve.plan.tasks.pair import pair as pair
    from memserve.plan.tasks.training import TrainOptions as TrainOptions
    from memserve.plan.tasks.training import train as train

_HOMES = {
    "Answer": "answer", "check": "checking", "Checkpoint": "candidate", "Verdict": "candidate",
    "best": "library", "candidates": "library", "Candidate": "candidate", "Plan": "plan",
    "PlanOptions": "query", "Query": "query", "anywhere": "tasks.anywhere", "compare": "tasks.comparing",
    "models": "tasks.models", "pair": "tasks.pair", "TrainOptions": "tasks.training",
    "train": "tasks.training",
}  # fmt: skip
__all__ = sorted(_HOMES)
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)
