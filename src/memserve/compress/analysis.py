"""`--dry-run`: what a model is made of, what methods would make of it, and how sensitive its layers are."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from memserve.compress import checks, interpreter, report, text
from memserve.compress.checks import Order
from memserve.engines.making import one, table
from memserve.errors import MemserveError

SAMPLES, LENGTH = 2, 256
LOW, HIGH = 0.1, 0.02
"""The summed rise of perplexity above which the potential is low, and below which it is high."""


def analyse(order: Order, args: Namespace, found: Sequence[Any]) -> dict[str, Any]:
    """Everything that is known without making anything."""
    from memserve.compress.job import default_folder

    folder = args.output or default_folder(args.model, order.methods)
    looked = checks.run(order, folder) if order.methods else []
    inside, why = _inside(order, args)
    return {
        "schema": 1, "model": args.model, "methods": [each.name for each in order.methods],
        "fits": all(check.ok for check in looked) and bool(order.methods or not args.machine),
        "parameters": order.model.parameters, "bytes": checks.weight_bytes(order.model, "none"),
        "predicted_bytes": order.after if order.methods else None,
        "checks": [check.to_dict() for check in looked],
        "inventory": _inventory(order), "potential": _potential(order, inside),
        "strategies": [each.to_dict() for each in found],
        "perplexity": inside.get("perplexity"), "layers": inside.get("layers"), "not_measured": why,
    }  # fmt: skip


def _inventory(order: Order) -> dict[str, int]:
    """Parameters by role."""
    roles: dict[str, int] = {}
    for weight in order.model.weights:
        roles[weight.part] = roles.get(weight.part, 0) + weight.parameters
    return roles


def _potential(order: Order, inside: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each method would cost in bytes here, and why it is or is not worth trying."""
    rows, whole = [], checks.weight_bytes(order.model, "none")
    for kind, row in table()["methods"].items():
        if row.get("prunes"):
            continue
        method = one(f"{kind}-{row['offered'][0]}" if row.get("levels") else kind)
        size, reason, group = checks.weight_bytes(order.model, method.name), "", None
        try:
            group = method.group(order.model)
        except MemserveError as error:
            reason = str(error)
        potential = _how_much(size / whole, bool(reason), inside)
        rows.append({"method": method.name, "bytes": size, "saving": round(1 - size / whole, 4),
                     "group": group, "potential": potential, "reason": reason or row["risk"]})  # fmt: skip
    return rows


def _how_much(share: float, refused: bool, inside: Mapping[str, Any]) -> str:
    """By the bytes saved; for four bits by what rounding every layer alone costs, summed."""
    if refused or share > 0.9:
        return "none" if refused else "low"
    rises = [layer["rise_4_bits"] for layer in inside.get("layers", ()) if layer["rise_4_bits"] is not None]
    if share > 0.5 or not rises:
        return "high" if share < 0.7 else "medium"
    return "low" if sum(rises) > LOW else "high" if sum(rises) < HIGH else "medium"


def _inside(order: Order, args: Namespace) -> tuple[dict[str, Any], str]:
    """Distributions and sensitivity, where the weights and a torch are at hand: nothing is installed."""
    if not Path(args.model).is_dir() or order.model.quantization or order.model.embeds:
        return {}, "layers are measured of a folder with 16-bit weights only"
    library = one("layers:1").library
    python = interpreter.Interpreters(args.python, may_install=False).having(library)
    if python is None:
        return (
            {},
            f"layers are measured where torch and transformers are: {library.install}, or --python PATH",
        )
    rows = {weight.shape[-1] for weight in order.model.weights if weight.linear}
    group = next((size for size in (128, 64, 32) if all(length % size == 0 for length in rows)), None)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "calibration.txt").write_text(text.read(args.text).calibration, encoding="utf-8")
        job = {"name": "analyse", "worker": "memserve.compress.worker.analysis", "do": "analyse",
               "model": args.model, "text": str(place / "calibration.txt"), "samples": SAMPLES,
               "length": LENGTH, "group": group, "distributions": library.distributions,
               "left_alone": [row["pattern"] for row in table()["left_alone"]]}  # fmt: skip
        return interpreter.work(python, job, place, library.env), ""


def page(said: Mapping[str, Any]) -> str:
    """The analysis in Markdown."""
    lines = [f"# {said['model']}: analysis", "",
             f"{said['parameters']:,} parameters, {_gib(said['bytes'])} GiB in 16 bits.", ""]  # fmt: skip
    rows: list[tuple[Any, ...]] = []
    if said["checks"]:
        wanted = " + ".join(said["methods"])
        rows = [(one["name"], "ok" if one["ok"] else "FAILS", one["said"])
                                       for one in said["checks"]]  # fmt: skip
        lines += [f"Asked for: {wanted}, predicted {_gib(said['predicted_bytes'])} GiB.", "",
                  *report.table(("check", "", "found"), rows), ""]  # fmt: skip
    rows = [(one["method"], _gib(one["bytes"]), f"{one['saving']:.0%}", one["potential"], one["reason"])
            for one in said["potential"]]  # fmt: skip
    lines += report.table(("method", "GiB", "saving", "potential", "why"), rows)
    if said["strategies"]:
        rows = [(one["method"], one["backend"], one["speedup"] or "", _share(one["loss"]),
                 one["refused"] or one["risk"]) for one in said["strategies"]]  # fmt: skip
        lines += [
            "",
            *report.table(("strategy", "backend", "speed", "published loss", "risk, or why not"), rows),
        ]
    return "\n".join((*lines, *_layers(said), *(("", said["not_measured"]) if said["not_measured"] else ())))


def _layers(said: Mapping[str, Any]) -> list[str]:
    """What was measured inside, a line a layer."""
    if not said["layers"]:
        return []
    rows = [(one["layer"], one["influence"], _share(one["rise_4_bits"]),
             _middle(one["modules"], "weight_max"), _middle(one["modules"], "input_outlier"))
            for one in said["layers"]]  # fmt: skip
    header = ("layer", "influence", "rise at 4 bits", "largest weight", "largest input channel")
    return ["", f"Perplexity of the samples: {said['perplexity']:.2f}.", "", *report.table(header, rows)]


def _gib(count: int) -> str:
    return f"{count / 2**30:.3f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:+.2%}"


def _middle(modules: Sequence[Mapping[str, float]], name: str) -> str:
    values = [one[name] for one in modules if name in one]
    return f"{median(values):.1f}" if values else ""
