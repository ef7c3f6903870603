"""`--for SPEC`: the formats that run on that machine, the least loss first, each with its risk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memserve.compress import checks
from memserve.compress.verdict import Gate
from memserve.engines.making import Method, one, table
from memserve.errors import DoesNotFit, MemserveError
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.plan import best
from memserve.plan.losses import WEIGHTS
from memserve.plan.plan import Plan
from memserve.speed import compression


@dataclass(frozen=True)
class Strategy:
    """One way to make the model fit a machine, as predicted."""

    method: str
    backend: str
    bytes: int
    speedup: float | None
    """Output tokens per second against the original on that machine; None where the original does not fit."""
    loss: float | None
    """As published of this very model; None: nobody measured it."""
    loss_source: str
    risk: str
    refused: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def strategies(model: ModelSpec, machine: Machine, gate: Gate) -> list[Strategy]:
    """Every quantization, those that run and keep to the targets first and in the order they are tried."""
    vendor = machine.card.vendor
    rows = table(vendor)["methods"]
    kinds = [kind for kind, row in rows.items() if "library" in row and not row.get("prunes")]
    words = [word for kind in kinds
             for word in ([f"{kind}-{level}" for level in rows[kind].get("offered", ())] or [kind])]  # fmt: skip
    base = _pace(_planned(model, machine, "none"))
    found = [_strategy(one(word, vendor), model, machine, base, gate) for word in words]
    return sorted(found, key=lambda each: (bool(each.refused), WEIGHTS.get(each.method, 40),
                                           -(each.speedup or 0), each.bytes))  # fmt: skip


def methods(found: Sequence[Strategy], vendor: str) -> Iterator[tuple[Method, ...]]:
    """The strategies that are not refused, as what is to be made."""
    for each in found:
        if not each.refused:
            yield (one(each.method, vendor),)


def _strategy(method: Method, model: ModelSpec, machine: Machine, base: float | None, gate: Gate) -> Strategy:
    size = checks.weight_bytes(model, method.name)
    plan = _planned(model, machine, method.name)
    pace = _pace(plan)
    speedup = round(pace / base, 3) if pace and base else None
    loss, source = _published(method, model)
    refused = plan if isinstance(plan, str) else _beyond(size, speedup, loss, gate)
    try:
        method.group(model)
    except DoesNotFit as error:
        refused = refused or str(error)
    backend = "" if isinstance(plan, str) else plan.backend
    return Strategy(method.name, backend, size, speedup, loss, source, str(method.row["risk"]), refused)


def _planned(model: ModelSpec, machine: Machine, quantization: str) -> Plan | str:
    """The plan, or why there is none."""
    try:
        return best(model, machine, quantization=quantization)
    except MemserveError as error:
        return error.message


def _pace(plan: Plan | str) -> float | None:
    if isinstance(plan, str) or not plan.speed:
        return None
    return float(plan.speed["output_tokens_per_s"]["likely"])


def _published(method: Method, model: ModelSpec) -> tuple[float | None, str]:
    """What was measured of this very model; of another one only who measured what."""
    rows = compression.accuracy(method.kind, model.id)
    if not rows:
        return None, "no published figure is known"
    first = rows[0]
    loss = round(1 - first.compressed / first.original, 4)
    if first.model == model.id:
        return loss, f"{first.benchmark}: {first.source}"
    return None, f"of {first.model}, another model: {loss:.1%} of {first.benchmark} ({first.source})"


def _beyond(size: int, speedup: float | None, loss: float | None, gate: Gate) -> str:
    if gate.memory and size > gate.memory:
        return f"the weights would take {size:,} bytes"
    if gate.min_speedup and speedup is not None and speedup < gate.min_speedup:
        return f"predicted {speedup:.2f} times as fast"
    if loss is not None and loss > gate.max_loss:
        return f"published loss {loss:.1%}"
    return ""
