"""What is looked at before any work: shapes, memory, disk, time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from memserve.engines.making import Method
from memserve.errors import DoesNotFit, MemserveError
from memserve.hardware.machine import GIB
from memserve.memory.formats import named
from memserve.memory.weights import Split, stage_bytes, storage
from memserve.model.spec import ModelSpec, Weight

LIBRARIES = int(1.2 * GIB)
"""What Python and torch take with no model."""
CPU_FLOPS, CARD_FLOPS = 25e9, 40e12
"""Of one core and of one card, as these libraries reach them: low, so that times are rather long."""
PASSES = 6
"""Of the calibration text, and of the judged one: the original, the result, and their greedy answers."""


@dataclass(frozen=True)
class Check:
    """One thing that must hold, and what was found."""

    name: str
    ok: bool
    said: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Order:
    """A model, what is to be done to it, and on how much text."""

    model: ModelSpec
    methods: tuple[Method, ...]
    samples: int | None
    length: int
    window: int
    windows: int

    @property
    def calibrated(self) -> int:
        """Tokens of calibration, all methods together."""
        return sum((self.samples or one.samples) * self.length for one in self.methods if one.samples)

    @property
    def result(self) -> ModelSpec:
        """The shapes after pruning."""
        return pruned(self.model, self.methods)

    @property
    def after(self) -> int:
        """Bytes of the result's weights, as predicted."""
        last = [one.name for one in self.methods if not one.prunes]
        return weight_bytes(self.result, last[0] if last else "none")


def run(order: Order, folder: Path) -> list[Check]:
    """Every check, the failed ones included."""
    return [*_shapes(order), *_places(order, folder), _time(order)]


def refuse(checks: Sequence[Check]) -> None:
    """The first that failed, as the reason why it cannot be made here."""
    for check in checks:
        if not check.ok:
            raise DoesNotFit(f"{check.name}: {check.said}")


def _shapes(order: Order) -> Iterator[Check]:
    model = order.model
    if model.quantization is not None:
        yield Check("weights", False, f"{model.id} is stored as {model.quantization.method} already: name its"
                    " 16-bit original")  # fmt: skip
        return
    if model.embeds:
        yield Check("task", False, "an embedder makes no text: perplexity cannot judge it")
        return
    yield Check("weights", True, f"{model.parameters:,} parameters in {model.dtype}")
    for method in order.methods:
        yield _shape(order, method)


def _shape(order: Order, method: Method) -> Check:
    try:
        if method.prunes:
            _prunable(order.model, method)
        group = method.group(order.result)
    except MemserveError as error:
        return Check(method.name, False, str(error))
    return Check(method.name, True, f"groups of {group}" if group else "shapes allow it")


def _prunable(model: ModelSpec, method: Method) -> None:
    if method.kind == "layers" and method.amount >= len(model.blocks):
        raise DoesNotFit(f"the model has {len(model.blocks)} layers")
    mlps = [{weight.name for weight in block.weights if weight.part == "mlp"} for block in model.blocks]
    if method.kind == "width" and any("down_proj" not in " ".join(names) for names in mlps):
        raise DoesNotFit("width:R needs one MLP with gate_proj, up_proj and down_proj in every layer")


def _places(order: Order, folder: Path) -> Iterator[Check]:
    from memserve.hardware.detection import host

    whole = weight_bytes(order.model, "none")
    need = LIBRARIES + int(whole * max(float(one.row["memory"]) for one in order.methods))
    free = (host.available() or host.memory()) + _cards()
    yield Check("memory", need <= free, f"{need / GIB:.1f} GiB are needed, {free / GIB:.1f} GiB are free")
    kept = order.window * order.windows * order.model.vocabulary * 2
    need = int((whole * sum(one.prunes for one in order.methods) + order.after) * 1.1) + kept
    if any(one.kind == "gguf" for one in order.methods):
        need += whole
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    yield Check("disk", need <= free, f"{need / GIB:.2f} GiB are needed, {free / GIB:.2f} GiB are free")


def _cards() -> int:
    from memserve import hardware

    try:
        machine = hardware.detect()
    except MemserveError:
        return 0
    return 0 if machine.card.vendor == "cpu" else sum(machine.free_memory or ())


def seconds(order: Order) -> float:
    """A guess: forward passes over both texts, and GPTQ's squares of each row length."""
    from memserve.hardware.detection import host

    tokens = PASSES * order.window * order.windows + 2 * order.calibrated
    work = 2.0 * order.model.active_parameters * tokens
    if any(one.row.get("multiple") for one in order.methods):
        work += sum(_solved(weight) for weight in order.model.weights if weight.linear)
    return 20 + work / (CARD_FLOPS if _cards() else CPU_FLOPS * host.cores())


def _solved(weight: Weight) -> float:
    rows, columns = (*weight.shape, 1)[-2:] if len(weight.shape) < 2 else weight.shape[-2:]
    return weight.count * columns**2 * (columns + 2.0 * rows)


def _time(order: Order) -> Check:
    guess = seconds(order)
    return Check(
        "time", True, f"about {guess / 60:.0f} to {3 * guess / 60:.0f} minutes once the library is here"
    )


def weight_bytes(model: ModelSpec, method: str) -> int:
    """Bytes of the weights in a format, as the planner counts them."""
    known = named(method) is not None or method == "none"
    return sum(stage_bytes(model, Split(), storage(model, method if known else "none", model.dtype)))


def pruned(model: ModelSpec, methods: Sequence[Method]) -> ModelSpec:
    """The shapes that pruning leaves."""
    for method in methods:
        if method.kind == "layers":
            model = replace(model, blocks=model.blocks[: max(1, len(model.blocks) - int(method.amount))])
        elif method.kind == "width":
            blocks = {id(one): replace(one, weights=tuple(_narrow(w, method.amount) for w in one.weights))
                      for one in model.blocks}  # fmt: skip
            model = replace(model, blocks=tuple(blocks[id(one)] for one in model.blocks))
    return model


def _narrow(weight: Weight, share: float) -> Weight:
    """The inner width of an MLP, as worker/pruning.py rounds it."""
    if weight.part != "mlp" or len(weight.shape) != 2:
        return weight
    down = "down_proj" in weight.name
    hidden, inner = weight.shape if down else weight.shape[::-1]
    step = next((one for one in (128, 64, 32) if inner % one == 0 and hidden % one == 0), 1)
    size = max(step, round(inner * share / step) * step)
    return replace(weight, shape=(hidden, size) if down else (size, hidden))
