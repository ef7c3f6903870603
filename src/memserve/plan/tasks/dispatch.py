"""Sends one call to what answers it: a plan, a check, a calibration, training, a pair, any machine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from memserve.errors import InvalidInput
from memserve.plan.tasks import options as command_line
from memserve.plan.tasks.showing import show

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence


def run(words: Sequence[str] | None = None) -> int:
    """Answer one call on stdout; 0 if a plan fits, 1 if none does."""
    options = command_line.parse(words)
    task: Callable[[Namespace], int] = plan
    if options.emit is not None:
        task = import_module("memserve.plan.tasks.emitting").run
    elif options.compare is not None:
        task = import_module("memserve.plan.tasks.comparing").run
    elif options.calibrate is not None:
        task = import_module("memserve.plan.tasks.calibrating").run
    elif options.check is not None:
        task = check_command
    elif options.train is not None:
        task = import_module("memserve.plan.tasks.training").run
    elif options.embedder is not None:
        task = import_module("memserve.plan.tasks.pair").run
    elif (options.gpus or "").strip().lower() == "any":
        task = import_module("memserve.plan.tasks.anywhere").run
    return task(options)


def plan(options: Namespace) -> int:
    """The plan for a model on a machine."""
    from memserve.plan.library import answered

    query = command_line.query(options)
    found = answered(options.model, options.gpus, query, everything=options.all)
    return show(found, options)


def check_command(options: Namespace) -> int:
    """The verdict on a command that one already has."""
    from memserve.plan.answer import checked
    from memserve.plan.checking import check

    if options.model is not None:
        raise InvalidInput("--check reads the model from the command: leave MODEL out")
    plan = check(
        options.check, options.gpus, engine_version=options.engine_version,
        memory_gib_per_card=options.memory, context=options.context, concurrency=options.concurrency,
    )  # fmt: skip
    return show(checked(plan), options)
