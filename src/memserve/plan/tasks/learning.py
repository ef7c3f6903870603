"""`--calibrate bench.json` learns a machine's speed; `--calibrations`, `--forget`: all that was learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import date
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve import files
from memserve.engines import installed
from memserve.errors import InvalidInput
from memserve.plan.page import Section, write
from memserve.speed import learnt
from memserve.speed.learnt import Learnt

if TYPE_CHECKING:
    from argparse import Namespace

    from memserve.memory.calibration import Calibration, StartupLog

MOST_BYTES = 16 << 20

_NEW = Learnt("", "")


def read(name: str) -> dict[str, Any] | None:
    """The JSON object in a file; None where it holds something else, as a log does."""
    try:
        with Path(name).open("rb") as file:
            start = file.read(MOST_BYTES)
        found = files.parsed(start) if start.lstrip()[:1] == b"{" else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def kept(found: Mapping[str, Any], options: Namespace) -> tuple[dict[str, Any], list[Section]]:
    """What a report taught, or somebody else learnt, once it is kept: as JSON and for a person."""
    new = _shared(found) if "results" not in found else (_taught(found, options),)
    keys = {one.key for one in new}
    path = learnt.save([*(one for one in learnt.load() if one.key not in keys), *new])
    said = [Section(f"learnt from {options.calibrate}", rows=_rows(new), style="good"),
            Section("kept in", lines=(str(path),), bullets=False)]  # fmt: skip
    return {"saved": str(path), "speeds": [asdict(one) for one in new]}, said


def started(found: Mapping[str, Any]) -> StartupLog | None:
    """The engine's start-up log in a report, where it is told which engine's it is."""
    from memserve.memory.calibration import StartupLog

    log = (found.get("memory") or {}).get("startup_log")
    if not isinstance(log, Mapping) or not isinstance(log.get("backend"), str):
        return None
    known = {name: log[name] for name in StartupLog.__dataclass_fields__ if name in log}
    whole = {name: value for name, value in known.items() if isinstance(value, str) or _positive(value)}
    return StartupLog(**whole)


def listed(options: Namespace) -> int:
    """What was learnt, each with a number; `--forget NUMBER` or `--forget all` takes it away first."""
    from memserve.memory import calibration

    memory, speeds = [*calibration.load()], [*learnt.load()]
    if options.forget is not None:
        memory, speeds = _without(memory, speeds, options.forget)
    every: list[Calibration | Learnt] = [*memory, *speeds]
    rows = tuple(_row(number, one) for number, one in enumerate(every, 1))
    said = [Section("learnt on this machine" if rows else "nothing was learnt on this machine", rows=rows)]
    return say(
        options, said, {"memory": [asdict(one) for one in memory], "speeds": [asdict(one) for one in speeds]}
    )


def _without(memory: list[Calibration], speeds: list[Learnt],
             word: str) -> tuple[list[Calibration], list[Learnt]]:  # fmt: skip
    from memserve.memory import calibration

    most = len(memory) + len(speeds)
    if word != "all" and not (word.isdigit() and 1 <= int(word) <= most):
        raise InvalidInput(
            f"nothing is kept under {word[:20]!r}", hint="--calibrations numbers what there is"
        )
    gone = set(range(1, most + 1)) if word == "all" else {int(word)}
    memory_left = [one for number, one in enumerate(memory, 1) if number not in gone]
    speeds_left = [one for number, one in enumerate(speeds, 1 + len(memory)) if number not in gone]
    calibration.write_all(memory_left)
    learnt.save(speeds_left)
    return memory_left, speeds_left


def _row(number: int, one: Calibration | Learnt) -> tuple[str, ...]:
    what = f"speed of {one.model}, {len(one.rows)} rows" if isinstance(one, Learnt) else "memory"
    source = one.source if isinstance(one, Learnt) else one.log
    return (str(number), f"{one.backend} {one.version or ''} on {one.tensor}x{one.card}: {what} ({source})")


def _rows(kept: tuple[Learnt, ...]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (one.model, f"{one.backend} on {one.tensor}x{one.card}: {_factors(one)}; {len(one.rows)} rows, "
                    f"{one.error:.0%} off in the mean") for one in kept
    )  # fmt: skip


def _factors(one: Learnt) -> str:
    changed = [f"{cause} x{factor:.3g}" for cause, factor in one.factors.items() if abs(factor - 1) > 0.02]
    return ", ".join(changed) or "as predicted"


def say(options: Namespace, sections: list[Section], answer: dict[str, Any]) -> int:
    """One object under --json, else a page."""
    if options.json:
        from memserve.plan.page import write_json

        write_json({"schema": 1, **answer})
    else:
        write(sections)
    return 0


def _shared(found: Mapping[str, Any]) -> tuple[Learnt, ...]:
    """What another machine of the same kind has learnt."""
    if "speeds" not in found:
        raise InvalidInput(
            "this JSON teaches nothing", hint="memserve bench -o FILE writes what can be learnt from"
        )
    return learnt.parsed(found["speeds"])


def _taught(found: Mapping[str, Any], options: Namespace) -> Learnt:
    """What the rows of a report say, together with those that were learnt from before."""
    from memserve.model import load
    from memserve.plan.library import machine_of
    from memserve.speed.roofline import forecast, layout, queueing, shape

    target = found.get("target") or {}
    backend, gpus = target.get("backend"), options.gpus or target.get("gpus")
    if not backend or not gpus:
        raise InvalidInput("the report does not say which engine answered on which cards",
                           hint="memserve bench --backend B --gpus SPEC")  # fmt: skip
    if not installed.can_plan(backend):
        raise InvalidInput(f"the speed of {backend} is not planned: nothing can be learnt for it",
                           hint=f"planned: {', '.join(installed.plannable())}")  # fmt: skip
    machine = machine_of(None if gpus == "cpu" else gpus)
    name = options.model or target.get("checkpoint") or target.get("model")
    model = load(str(name))
    placing = {name: target.get(name) for name in (
        "engine_version", "quantization", "tensor_parallel", "pipeline_parallel", "data_parallel", "kv_dtype"
    )}  # fmt: skip
    if model.quantization is not None and not placing["quantization"]:
        placing["quantization"] = model.quantization.method
    form = shape.of(model)

    def predict(row: Mapping[str, float], factors: learnt.Factors) -> Mapping[str, float]:
        load_ = queueing.Load(row["input_tokens"], row["output_tokens"])
        placed = forecast.situate(form, machine, backend, load_, row["concurrency"], **placing)
        bare = layout.constants(placed.engine, layout.family(machine.card), placed.generation)
        setup = placed.setup._replace(constants=learnt.scaled(bare, factors))
        speed = forecast.judge(placed._replace(setup=setup, measured=_NEW))
        return {name: values["likely"] for name, values in speed.to_dict().items()}

    one = Learnt(
        backend=backend, card=machine.card.name, tensor=placing["tensor_parallel"] or 1,
        version=placing["engine_version"], model=form.id, quantization=placing["quantization"],
        rows=tuple(filter(None, map(_measured, found["results"]))), source=Path(options.calibrate).name,
        date=date.today().isoformat(),
    )  # fmt: skip
    if not one.rows:
        raise InvalidInput("the report has no row that can be learnt from: nothing was answered")
    older = next((old.rows for old in learnt.load() if old.key == one.key), ())
    rows = (*(row for row in older if row not in one.rows), *one.rows)[-learnt.MOST :]
    factors, error = learnt.fit(rows, predict)
    return replace(one, rows=rows, factors=factors, error=round(error, 4))


def _measured(row: Mapping[str, Any]) -> dict[str, float] | None:
    """What of a report's row is learnt from."""
    means = {name: (row.get(name) or {}).get("mean") for name in ("ttft_ms", "tpot_ms")}
    given = {
        "input_tokens": row.get("input_tokens"), "output_tokens": row.get("output_tokens"),
        "concurrency": row.get("concurrency") or row.get("in_flight"),
        **means, "output_tokens_per_s": row.get("output_tokens_per_s"),
    }  # fmt: skip
    numbers = {name: float(str(value)) for name, value in given.items() if _positive(value)}
    return numbers if {"input_tokens", "output_tokens", "concurrency"} <= set(numbers) else None


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0
