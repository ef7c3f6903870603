"""`--dry-run` and `--for`: what is inside a model, what methods would make of it, and which runs where."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memserve.compress import checks, interpreter, text
from memserve.compress.checks import Order
from memserve.compress.report import Gate, table
from memserve.engines import making
from memserve.errors import MemserveError
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import WEIGHTS

SAMPLES, LENGTH = 2, 256
_OK = {True: "ok", False: "FAILS"}
SLOWER = 0.9
LOW, HIGH = 0.1, 0.02
"""The summed rise of perplexity above which the potential of 4 bits is low, and below which it is high."""


def strategies(model: ModelSpec, machine: Machine | None, gate: Gate) -> list[dict[str, Any]]:
    """Every quantization: those that run there and keep to the targets first, the least loss first."""
    vendor = machine.card.vendor if machine else ""
    base = _planned(model, machine, "none")[1]
    found = [_strategy(model, machine, method, base, gate) for method in making.quantizations(vendor)]
    return sorted(found, key=_order)


def _order(one: Mapping[str, Any]) -> tuple[Any, ...]:
    """What runs, what is hardly slower, what loses least; then the fastest, the smallest."""
    pace = one["speedup"] or 1.0
    return bool(one["refused"]), pace < SLOWER, WEIGHTS.get(one["method"], 40), -pace, one["bytes"]


def _strategy(model: ModelSpec, machine: Machine | None, method: making.Method, base: float | None,
              gate: Gate) -> dict[str, Any]:  # fmt: skip
    size, whole = checks.weight_bytes(model, method.name), checks.weight_bytes(model, "none")
    backend, pace, refused = _planned(model, machine, method.name)
    speedup = round(pace / base, 3) if pace and base else None
    loss, borrowed, source = _published(method, model)
    group = None
    try:
        group = method.group(model)
    except MemserveError as error:
        refused = refused or error.message
    return {
        "method": method.name, "backend": backend, "bytes": size, "saving": round(1 - size / whole, 4),
        "group": group, "speedup": speedup, "loss": loss, "borrowed_loss": borrowed,
        "loss_source": source, "risk": method.row["risk"],
        "refused": refused or gate.refuses(size, loss, speedup),
    }  # fmt: skip


def _planned(model: ModelSpec, machine: Machine | None, method: str) -> tuple[str | None, float | None, str]:
    """The backend of the best plan, its tokens per second, or why there is none."""
    from memserve.plan import best

    if machine is None:
        return None, None, ""
    try:
        plan = best(model, machine, quantization=method)
    except MemserveError as error:
        return None, None, error.message
    return plan.backend, plan.speed["output_tokens_per_s"]["likely"] if plan.speed else None, ""


def missed(order: Order, machine: Machine | None, gate: Gate) -> str:
    """Why `--to` cannot meet its targets; the planner knows of models that are quantized, not pruned."""
    one = order.methods[0]
    why = "" if one.prunes else _planned(order.model, machine, one.name)[2]
    return why or gate.refuses(order.after, None, None)


def _published(method: making.Method, model: ModelSpec) -> tuple[float | None, str | None, str]:
    """What was measured of this very model, here or elsewhere; else what of which other model; by whom."""
    from memserve.speed.losses import accuracy

    for one in accuracy(method.name, model.id)[:1]:
        loss, said, whose = round(one.loss, 4), f"{one.benchmark}, {one.source}", one.of(model.id)
        borrowed = f"{loss:+.1%} of {one.model}, {whose}" if whose else None
        return None if whose else loss, borrowed, said
    return None, None, "nobody published one that is known"


def analyse(order: Order, args: Namespace, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Everything that is known without making anything."""
    looked = checks.run(order, args.output or Path()) if order.methods else []
    inside, why = _inside(order, args)
    rises = [one["rise_4_bits"] for one in inside.get("layers", ())]
    roles: dict[str, int] = {}
    for weight in order.model.weights:
        roles[weight.part] = roles.get(weight.part, 0) + weight.parameters
    fits = all(check["ok"] for check in looked) and bool(order.methods or not args.machine)
    return {
        "schema": 1, "model": args.model, "methods": [one.name for one in order.methods], "fits": fits,
        "parameters": order.model.parameters, "inventory": roles,
        "bytes": checks.weight_bytes(order.model, "none"), "predicted_bytes": order.after, "checks": looked,
        "strategies": [{**one, "potential": _potential(one, rises)} for one in found],
        "perplexity": inside.get("perplexity"), "layers": inside.get("layers"), "not_measured": why,
    }  # fmt: skip


def _potential(one: Mapping[str, Any], rises: Sequence[float]) -> str:
    """By the bytes saved; of four bits by what rounding each layer alone costs, summed."""
    if one["refused"] or one["saving"] < 0.1:
        return "none" if one["refused"] else "low"
    if one["saving"] < 0.5 or not rises:
        return "high" if one["saving"] > 0.3 else "medium"
    return "low" if sum(rises) > LOW else "high" if sum(rises) < HIGH else "medium"


def _inside(order: Order, args: Namespace) -> tuple[dict[str, Any], str]:
    """Distributions and sensitivity, where the weights and a torch are at hand: nothing is installed."""
    here = any(Path(args.model).glob("*.safetensors"))
    if not here or order.model.quantization or order.model.embeds:
        return {}, "layers are measured of a folder with 16-bit weights only"
    library = making.one("layers:1").library
    python = interpreter.Interpreters(args.python, may_install=False).having(library)
    if python is None:
        return (
            {},
            f"layers are measured where torch is: {making.install(library)}, or --python PATH",
        )
    rows = {weight.shape[-1] for weight in order.model.weights if weight.linear}
    group = next((size for size in (128, 64, 32) if all(length % size == 0 for length in rows)), 0)
    with tempfile.TemporaryDirectory() as name:
        sample = Path(name) / "calibration.txt"
        sample.write_text(text.read(args.text).calibration, encoding="utf-8")
        job = {"name": "analyse", "do": "analyse", "model": args.model, "text": str(sample),
               "samples": SAMPLES, "length": LENGTH, "group": group}  # fmt: skip
        return interpreter.work(python, library, job, Path(name)), ""


def page(said: Mapping[str, Any]) -> str:
    """The analysis in Markdown."""
    what = " + ".join(said["methods"]) or "unchanged"
    sizes = f"{_gib(said['bytes'])} GiB as stored; {what}: {_gib(said['predicted_bytes'])} GiB."
    lines = [f"# {said['model']}: analysis", "", f"{said['parameters']:,} parameters, {sizes}"]
    rows: list[tuple[Any, ...]] = [(one["name"], _OK[one["ok"]], one["said"]) for one in said["checks"]]
    lines += ["", *table(("check", "", "found"), rows)] if rows else []
    rows = [(one["method"], _gib(one["bytes"]), one["potential"], one["backend"] or "", one["speedup"] or "",
             one["borrowed_loss"] or _share(one["loss"]), one["refused"] or one["risk"])
            for one in said["strategies"]]  # fmt: skip
    names = ["method", "GiB", "potential", "backend", "times as fast", "loss", "why not, or its risk"]
    lines += ["", *table(names, rows)]
    if said["layers"]:
        rows = [(one["layer"], one["influence"], _share(one["rise_4_bits"]), one["weight_max"],
                 one["weight_kurtosis"], one["input_outlier"]) for one in said["layers"]]  # fmt: skip
        names = ["layer", "influence", "rise at 4 bits", "largest weight", "kurtosis", "largest input"]
        lines += ["", f"Perplexity of the samples: {said['perplexity']:.2f}.", "", *table(names, rows)]
    return "\n".join((*lines, "", said["not_measured"]))


def _gib(count: int) -> str:
    return f"{count / 2**30:.3f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:+.2%}"
