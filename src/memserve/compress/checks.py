"""What is looked at before any work: shapes, memory, disk, time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from memserve.engines.making import Method
from memserve.errors import DoesNotFit, MemserveError, ModelUnreadable
from memserve.hardware.machine import GIB
from memserve.memory.formats import named
from memserve.memory.weights import Split, stage_bytes, storage
from memserve.model.spec import ModelSpec
from memserve.model.stored import headers

LIBRARIES = int(1.2 * GIB)
"""What Python and torch take with no model."""
CPU_FLOPS, CARD_FLOPS = 25e9, 40e12
"""Of one core and of one card, as these libraries reach them: low, so that times are rather long."""
READ = {
    "weights": r"^(?!adapter).*\.safetensors$|^pytorch_model.*\.bin$",
    "tokenizer": "token|vocab|tekken|spiece",
}
PASSES = 6
"""Of the judged text: the original, the result, and their greedy answers."""


@dataclass(frozen=True)
class Order:
    """A model, what is to be done to it, and on how much text."""

    model: ModelSpec
    methods: tuple[Method, ...]
    samples: int | None
    length: int
    window: int
    windows: int
    name: str = ""
    """A folder, or a hub's id."""
    missed: str = ""
    """Why a target cannot be met."""

    @property
    def after(self) -> int:
        """Bytes of the result's weights, as predicted."""
        last = next((one.name for one in self.methods if not one.prunes), "none")
        whole, blocks = self.model.parameters, self.model.blocks
        gone = {one.kind: one.amount for one in self.methods if one.prunes}
        layers = min(1.0, gone.get("layers", 0) / max(1, len(blocks)))
        kept = sum(weight.parameters * (1 - layers) * (gone.get("width", 1) if weight.part == "mlp" else 1)
                   for block in blocks for weight in block.weights)  # fmt: skip
        rest = whole - sum(weight.parameters for block in blocks for weight in block.weights)
        return int(weight_bytes(self.model, last) * (kept + rest) / whole)

    def samples_of(self, method: Method) -> int:
        """Calibration samples of a method; 0 where it needs none."""
        return (self.samples or int(method.row["samples"])) if method.row["samples"] else 0


def run(order: Order, folder: Path) -> list[dict[str, Any]]:
    """Every check, the failed ones included: name, ok, said."""
    found = (*_shapes(order), *_places(order, folder), ("time", True, _time(order)))
    return [{"name": name, "ok": ok, "said": said} for name, ok, said in found]


def refuse(found: Sequence[dict[str, Any]]) -> None:
    """The first that failed, as the reason why it cannot be made here."""
    for check in found:
        if not check["ok"]:
            raise DoesNotFit(f"{check['name']}: {check['said']}")


def _shapes(order: Order) -> Iterator[tuple[str, bool, str]]:
    model = order.model
    if model.quantization is not None:
        yield "weights", False, f"stored as {model.quantization.method} already: name its 16-bit original"
        return
    if model.embeds or model.reranks or model.encoder:
        yield "task", False, "it is no decoder that makes text, so perplexity cannot judge it"
        return
    if said := _contradicted(order):
        yield "weights", False, said
        return
    yield "weights", True, lacking(order) or f"{model.parameters:,} parameters in {model.dtype}"
    yield from _windows(order)
    if order.missed:
        yield "target", False, order.missed
    for method in order.methods:
        yield _shape(order, method)


def _contradicted(order: Order) -> str:
    """Where a folder's weights are not those of its config.json: another width, or fewer than it builds."""
    folder, model = Path(order.name or "/dev/null"), order.model
    try:
        stored = headers.tensors(folder) if model.exact and folder.is_dir() else {}
    except ModelUnreadable as error:
        return str(error)
    if not stored:
        return ""
    shapes, held = {one.shape for one in stored.values()}, sum(one.elements for one in stored.values())
    first = next((one.shape for one in model.weights if one.part == "embedding"), None)
    if first and first not in shapes:
        return f"{folder}: config.json asks for an embedding of {first}, no weight has that shape"
    if held < model.parameters:
        return f"{folder}: config.json asks for {model.parameters:,} parameters, the weights hold {held:,}"
    return ""


def lacking(order: Order) -> str:
    """What a folder lacks that every library reads."""
    names = [path.name for path in Path(order.name or "/dev/null").glob("*")]
    wanted = [what for what, name in READ.items() if not any(re.search(name, one) for one in names)]
    return f"{order.name} holds no {wanted[0]}" if names and wanted else ""


def _windows(order: Order) -> Iterator[tuple[str, bool, str]]:
    sizes, most = (order.length, order.window), order.model.max_context
    if min(sizes) < 2 or max(sizes) > (most or max(sizes)):
        said = f"--length {order.length} and --window {order.window}"
        yield "text", False, f"{said}: 2 to {most or 'any'} tokens can be read"


def _shape(order: Order, method: Method) -> tuple[str, bool, str]:
    try:
        if method.prunes:
            _prunable(order.model, method)
        group = method.group(order.model)
    except MemserveError as error:
        return method.name, False, str(error)
    return method.name, True, f"groups of {group}" if group else "shapes allow it"


def _prunable(model: ModelSpec, method: Method) -> None:
    if method.kind == "layers" and method.amount >= len(model.blocks):
        raise DoesNotFit(f"the model has {len(model.blocks)} layers")
    mlps = [
        " ".join(weight.name for weight in block.weights if weight.part == "mlp") for block in model.blocks
    ]
    if method.kind == "width" and not all("down_proj" in names for names in mlps):
        raise DoesNotFit("it needs one MLP with gate_proj, up_proj and down_proj in every layer")


def _places(order: Order, folder: Path) -> Iterator[tuple[str, bool, str]]:
    from memserve.hardware.detection import host

    whole = weight_bytes(order.model, "none")
    need = LIBRARIES + int(whole * max(float(one.row["memory"]) for one in order.methods))
    yield _enough("memory", need, (host.available() or host.memory()) + _cards())
    kept = order.window * order.windows * order.model.vocabulary * 2
    passing = sum(one.prunes or one.kind == "gguf" for one in order.methods)
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    yield _enough("disk", int((whole * passing + order.after) * 1.1) + kept, shutil.disk_usage(place).free)


def _enough(name: str, need: int, free: int) -> tuple[str, bool, str]:
    return name, need <= free, f"{need / GIB:.2f} GiB are needed, {free / GIB:.2f} GiB are free"


@cache
def _cards() -> int:
    """Bytes that are free on this machine's cards."""
    from memserve import hardware

    try:
        machine = hardware.detect()
    except MemserveError:
        return 0
    return 0 if machine.card.vendor == "cpu" else sum(machine.free_memory or ())


def _time(order: Order) -> str:
    """A guess: forward passes over both texts, and GPTQ's squares of each row length."""
    from memserve.hardware.detection import host

    tokens = PASSES * order.window * order.windows
    tokens += 2 * order.length * sum(map(order.samples_of, order.methods))
    work = 2.0 * order.model.active_parameters * tokens
    if any(one.row.get("multiple") for one in order.methods):
        shapes = [(one.count, *one.shape[-2:]) for one in order.model.weights if one.linear]
        work += sum(count * columns**2 * (columns + 2.0 * rows) for count, rows, columns in shapes)
    guess = 20 + work / (CARD_FLOPS if _cards() else CPU_FLOPS * host.cores())
    return f"about {guess / 60:.0f} to {3 * guess / 60:.0f} minutes once the library is here"


def weight_bytes(model: ModelSpec, method: str) -> int:
    """Bytes of the weights in a format, as the planner counts them."""
    known = method if named(method) is not None else "none"
    return sum(stage_bytes(model, Split(), storage(model, known, model.dtype)))
