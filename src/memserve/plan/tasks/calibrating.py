"""`--calibrate LOG`: learns a machine's constants from an engine's start-up log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve import files
from memserve.engines import installed
from memserve.engines.memory import Footprint
from memserve.errors import InvalidInput, MemserveError
from memserve.hardware.machine import GIB, Card
from memserve.memory.calibration import Calibration, StartupLog
from memserve.plan.page import Section

if TYPE_CHECKING:
    from argparse import Namespace

    from memserve.engines.deployment import Deployment

LEAST = 0.85
"""Totals of one card differ less than this between drivers and engines."""


def run(options: Namespace) -> int:
    """Read the log, keep what it teaches, and say so; a report of `memserve bench` teaches speed, too."""
    from memserve.memory import calibration
    from memserve.plan.tasks import learning

    if options.calibrate is None:
        return learning.listed(options)
    report = learning.read(options.calibrate)
    if report is not None and "profiles" in report:
        return learning.say(options, *taken_over(report, options))
    if report is None:
        answer, said = kept(calibration.read_log(options.calibrate), options)
    else:
        answer, said = of_report(report, options)
    return learning.say(options, said, answer)


def of_report(report: Mapping[str, Any], options: Namespace) -> tuple[dict[str, Any], list[Section]]:
    """What a report taught of speed, and of memory where it holds the start-up log."""
    from memserve.plan.tasks import learning

    try:
        options.gpus = options.gpus or (report.get("target") or {}).get("gpus")
        log = learning.started(report)
        memory, about = kept(log, options) if log else ({}, [])
        speed, said = learning.kept(report, options)
    except MemserveError:
        raise
    except files.STUMBLES as broken:
        reason = f"{options.calibrate} is no report of memserve bench: {type(broken).__name__}: {broken}"
        raise InvalidInput(reason[:200], hint="memserve bench -o FILE writes one") from None
    return {**memory, **speed}, [*said, *about]


def kept(log: StartupLog, options: Namespace) -> tuple[dict[str, Any], list[Section]]:
    """What a start taught of memory, once it is kept: as JSON and for a person."""
    from memserve.memory import calibration
    from memserve.plan.library import machine_of

    machine_name = options.gpus or log.device
    if machine_name is None:
        raise InvalidInput("the log names no card", hint="say which with --gpus, as --gpus 4xV100")
    card = machine_of(machine_name).card
    doubt = another_card(log, card)
    learnt = calibration.learn(
        replace(log, total=None) if doubt else log, card=card.name, name=Path(options.calibrate).name,
        footprint=accounted(log, machine_name, options.model),
    )  # fmt: skip
    path = None if learnt.empty else calibration.save(learnt)
    notes = [doubt] if doubt else []
    answer = {"saved": path and str(path), "calibration": shown(learnt), "notes": notes}
    return answer, sections(learnt, path, options.calibrate, doubt)


def taken_over(found: dict[str, Any], options: Namespace) -> tuple[list[Section], dict[str, Any]]:
    """What another machine of the kind has learnt of memory: its calibration.json."""
    from memserve.memory import calibration

    try:
        new = calibration.parsed(found)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f"{options.calibrate!r} is no calibration of memserve: {error}") from None
    paths = {str(calibration.save(one)) for one in new}
    rows = tuple((one.card, f"{one.backend} {one.version or ''} x{one.tensor} ({one.log})") for one in new)
    said = [Section(f"learnt from {options.calibrate}", rows=rows, style="good")]
    return said, {"saved": next(iter(paths), None), "memory": [shown(one) for one in new]}


def another_card(log: StartupLog, card: Card) -> str:
    """A doubt, where the log's card has not the memory of this one: its total is not learnt then."""
    if log.total is None or LEAST < log.total / card.memory < 1 / LEAST:
        return ""
    sizes = f"{log.total / GIB:.2f} GiB and {card.name} has {card.memory / GIB:.2f} GiB"
    return f"the log is of a card of {sizes}: its total was left out; --gpus should name the log's own card"


def sections(learnt: Calibration, path: Path | None, log: str, doubt: str) -> list[Section]:
    """What was learnt and where it is kept."""
    rows = Section(rows=tuple((name.replace("_", " "), str(value)) for name, value in shown(learnt).items()))
    if path is None:
        why = "it shows no total, non-torch memory, graphs, activation or KV cache: nothing was kept"
        return [Section(f"nothing to learn from {log}", style="bad"), rows, Section(why)]
    kept = Section("kept in", lines=(str(path),), bullets=False)
    doubts = [Section(doubt, style="bad")] if doubt else []
    return [Section(f"learnt from {log}", style="good"), *doubts, rows, kept]


def shown(learnt: Calibration) -> dict[str, Any]:
    """A calibration with bytes in GiB."""
    from dataclasses import asdict

    sizes = ("total", "non_torch", "graphs", "residual")
    return {
        name: round(value / GIB, 4) if name in sizes and value is not None else value
        for name, value in asdict(learnt).items()
        if value not in (None, "")
    }


def accounted(log: StartupLog, gpus: str, model_name: str | None) -> Footprint | None:
    """Our own account of that very start; None where its model is not known."""
    from memserve.model import load
    from memserve.plan.library import machine_of

    name = model_name or log.model
    if name is None:
        return None
    try:
        model = load(name)
    except MemserveError:
        if model_name is not None:
            raise
        return None
    machine = machine_of(gpus)
    machine = replace(machine, cards_per_node=max(machine.cards_per_node, log.tensor or 1))
    return installed.named(log.backend).memory.account(model, machine, started(log, model.max_context))


def started(log: StartupLog, longest: int | None) -> Deployment:
    """The deployment that the log tells of."""
    from memserve.engines.deployment import Deployment, Layout

    return Deployment(
        backend=log.backend, engine_version=log.version or "newest", dtype="auto",
        layout=Layout(tensor=log.tensor or 1, pipeline=log.pipeline or 1),
        context=log.context or longest or 8192, utilization=log.utilization,
        max_sequences=log.max_sequences, max_batched_tokens=log.max_batched_tokens,
    )  # fmt: skip
