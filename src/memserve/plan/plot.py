"""Draws the memory of each card, and how many tokens its KV cache holds as the context grows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from memserve.engines import installed
from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB
from memserve.missing import install_line
from memserve.plan.answer import Answer
from memserve.plan.candidate import loaded
from memserve.plan.plan import Plan
from memserve.plan.sections import PARTS

FORMATS = (".png", ".svg")
POINTS = 24
SHORTEST = 512


def draw(answer: Answer, file: str) -> None:
    """Write the picture of the plan, or of the closest miss, to a .png or .svg file."""
    plan = answer.plan or answer.closest
    check_file(file)
    if plan is None or plan.footprint is None:
        raise InvalidInput("there is no memory to draw: a rule forbids every candidate")
    made = figure()
    cards, capacity = made.subplots(1, 2)
    _cards(cards, plan)
    _capacity(capacity, plan)
    made.suptitle(f"{plan.model.id} on {answer.machine.cards}x{answer.machine.card.name}")
    made.tight_layout()
    made.savefig(file)


def check_file(file: str) -> None:
    """Refuse a picture in another format before any work."""
    if Path(file).suffix.lower() not in FORMATS:
        raise InvalidInput(f"--plot writes .png or .svg, not {file[:80]!r}")
    if not Path(file).parent.is_dir():
        raise InvalidInput(f"--plot cannot write {file[:80]!r}: there is no such folder")


def figure() -> Any:
    """An empty picture; refused with the install line where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InvalidInput("--plot needs matplotlib", hint=f"run: {install_line('plot')}") from error
    return Figure(figsize=(11, 4.5), dpi=120)


def _cards(axes: Any, plan: Plan) -> None:
    """One stacked bar per card; the fullest rank stands for each that is taken."""
    footprint = plan.footprint
    if footprint is None:
        return
    names = [f"card {number}" for number in range(min(plan.deployment.layout.cards, 16))]
    left = [0.0] * len(names)
    for part in PARTS:
        size = max(0, getattr(footprint, part)) / GIB
        axes.barh(names, [size] * len(names), left=left, label=f"{part.replace('_', ' ')} {size:.2f}")
        left = [start + size for start in left]
    axes.axvline(footprint.usable / GIB, color="black", linestyle="--", label="budget")
    axes.set_xlim(0, footprint.total / GIB)
    axes.set_xlabel("GiB of a card (the fullest rank)")
    axes.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)


def _capacity(axes: Any, plan: Plan) -> None:
    """Requests at once against the context."""
    contexts = _contexts(plan)
    backend, model = installed.named(plan.backend), loaded(plan.model, plan.checkpoint)
    held = [
        backend.memory.account(model, plan.machine, replace(plan.deployment, context=context)).max_concurrency
        for context in contexts
    ]
    axes.plot(contexts, [requests * plan.data_parallel for requests in held], marker="o", markersize=3)
    axes.axhline(plan.concurrency, color="black", linestyle="--", label=f"{plan.concurrency} wanted")
    axes.set_xscale("log", base=2)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(lambda tokens, _: f"{tokens / 1024:g}k")
    axes.yaxis.set_major_formatter(lambda requests, _: f"{requests:g}")
    axes.set_xlabel("context (tokens of one request)")
    axes.set_ylabel("requests that the KV cache holds at once")
    axes.legend(fontsize="x-small")


def _contexts(plan: Plan) -> list[int]:
    longest = max(SHORTEST, plan.model.max_context or plan.context, plan.context)
    step = (longest / SHORTEST) ** (1 / (POINTS - 1))
    return sorted({round(SHORTEST * step**number) for number in range(POINTS)})
