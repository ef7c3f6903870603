"""Sends one call to what answers it: a plan, a check, a calibration, training, a pair, any machine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from memserve.errors import InvalidInput
from memserve.plan.answer import Answer
from memserve.plan.tasks import options as command_line
from memserve.plan.tasks.showing import show

if TYPE_CHECKING:
    from argparse import Namespace

TASKS = {
    "emit": "emitting", "compare": "comparing", "calibrate": "calibrating", "check": "", "train": "training",
    "embedder": "pair", "any": "anywhere",
}  # fmt: skip
"""The option that asks for each task, the first that is given wins, and the module that answers it."""


def run(words: Sequence[str] | None = None) -> int:
    """Answer one call on stdout; 0 if a plan fits, 1 if none does."""
    options = command_line.parse(words)
    asked = {**vars(options), "any": command_line.any_machine(options) or None}
    name = next((name for name in TASKS if asked[name] is not None), "")
    if name and TASKS[name]:
        return int(import_module(f"memserve.plan.tasks.{TASKS[name]}").run(options))
    found = check(options) if name == "check" else plan(options)
    if options.plot is not None:
        from memserve.plan.report.plot import draw

        draw(found, options.plot)
    return show(found, options)


def plan(options: Namespace) -> Answer:
    """The plan for a model on a machine."""
    from memserve.plan.library import answered
    from memserve.plan.query import Query

    query = Query.of(**command_line.asked(options))
    return answered(options.model, options.gpus, query, everything=options.all)


def check(options: Namespace) -> Answer:
    """The verdict on a command that one already has."""
    from memserve.plan.answer import checked
    from memserve.plan.checking import check as judged

    if options.model is not None:
        raise InvalidInput("--check reads the model from the command: leave MODEL out")
    plan = judged(
        options.check, options.gpus, engine_version=options.engine_version,
        memory_gib_per_card=options.memory, context=options.context, concurrency=options.concurrency,
    )  # fmt: skip
    return checked(plan)
