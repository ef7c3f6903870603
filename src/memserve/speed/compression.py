"""What compression does to size, memory and speed; accuracy only where a published table states it.

Quantization changes the bytes that a step reads and, with 8- or 4-bit activations, the arithmetic. Pruning
changes them only as far as kernels can skip what is gone: single zeros save nothing.
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from memserve import files
from memserve.errors import InvalidInput
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec
from memserve.speed.result import Speed
from memserve.speed.roofline import formats, layout, queueing, shape
from memserve.speed.roofline.forecast import judge, situate
from memserve.speed.roofline.shape import Shape

QUANTIZATIONS = ("none", "fp8", "w8a8", "int8", "w8a16", "gptq", "awq", "w4a16", "nf4", "nvfp4", "mxfp4",
                 "gguf-q4_k_m")  # fmt: skip
HALF_BITS = 16 * 0.5 + 2 * 0.5
"""2:4 keeps half the 16-bit values with two index bits each, as NVIDIA's sparse tensor cores store them."""
SPARSE_KERNELS = {80, 86, 87, 89, 90}
"""Compute capabilities whose 2:4 kernels exist (Ampere to Hopper)."""


@dataclass(frozen=True)
class Accuracy:
    """One published measurement of a compressed model."""

    method: str
    model: str
    benchmark: str
    original: float
    compressed: float
    source: str


@dataclass(frozen=True)
class Effect:
    """One way to compress a model on one machine."""

    method: str
    parameters: float
    weight_bytes: float
    """All cards together."""
    speed: Speed
    faster: float
    """Output tokens per second against the uncompressed model, likely values."""
    accuracy: tuple[Accuracy, ...] = ()
    """Of other models too: `model` says whose. Empty: no published table is known."""
    note: str = ""


def quantizations(model: ModelSpec, machine: Machine, backend: str, *, names: tuple[str, ...] = QUANTIZATIONS,
                  input_tokens: float = 1024, output_tokens: float = 256, concurrency: float | None = 16,
                  **layout_words: Any) -> list[Effect]:  # fmt: skip
    """Size, memory and speed of a model in each quantization, the uncompressed one first."""
    bare = shape.of(model)._replace(stored=None, experts_only=False)
    load = queueing.Load(input_tokens, output_tokens)

    def effect(name: str, base: Speed | None) -> Effect:
        seen = situate(bare, machine, backend, load, concurrency, quantization=name, **layout_words)
        return _effect(name, bare, seen.setup.format, judge(seen), base)

    first = effect("none", None)
    return [first, *(effect(name, first.speed) for name in names if name != "none")]


def prune(model: ModelSpec, machine: Machine, backend: str, pattern: str, *, input_tokens: float = 1024,
          output_tokens: float = 256, concurrency: float | None = 16,
          **layout_words: Any) -> Effect:  # fmt: skip
    """`unstructured:0.5`, `2:4`, `channel:0.25` (of each layer's width) or `layer:8` (whole layers)."""
    bare = shape.of(model)._replace(stored=None, experts_only=False)
    load = queueing.Load(input_tokens, output_tokens)
    base = judge(situate(bare, machine, backend, load, concurrency, **layout_words))
    smaller, bits, note = pruned(bare, pattern, machine.card.sm)
    seen = situate(smaller, machine, backend, load, concurrency, **layout_words)
    form = seen.setup.format
    if bits:
        form = form._replace(name=pattern, bits=bits)
        seen = seen._replace(setup=seen.setup._replace(format=form))
    return _effect(pattern, smaller, form, judge(seen), base, note)


def pruned(whole: Shape, pattern: str, sm: int | None) -> tuple[Shape, float | None, str]:
    """The smaller shape, the bits a kept and skipped weight take on average (None: 16), and why."""
    pair = re.fullmatch(r"(\d+):(\d+)", pattern)
    if pair:
        return whole, *_patterned(int(pair.group(1)), int(pair.group(2)), sm)
    kind, _, amount = pattern.partition(":")
    try:
        value = float(amount)
    except ValueError:
        value = -1.0
    if kind == "unstructured" and 0 < value < 1:
        return whole, None, "zeros stay in dense matrices: no size, memory or time is saved by engines today"
    if kind == "channel" and 0 < value < 1:
        return _narrower(whole, 1 - value), None, "smaller dense matrices: every engine gains"
    if kind == "layer" and 0 < value < whole.layers and value == int(value):
        return _shorter(whole, int(value)), None, "fewer layers: weights, cache and launches shrink alike"
    raise InvalidInput(f"not a pruning: {pattern!r}", hint="unstructured:0.5, 2:4, channel:0.25 or layer:8")


def accuracy(method: str, model: str | None = None) -> tuple[Accuracy, ...]:
    """Published measurements of a method, those of the model itself first."""
    rows = [row for row in _accuracies() if row.method == method]
    return tuple(sorted(rows, key=lambda row: row.model != model))


def _patterned(kept: int, of: int, sm: int | None) -> tuple[float | None, str]:
    if not 0 < kept < of:
        raise InvalidInput(f"{kept}:{of} keeps no part of every {of} weights")
    if (kept, of) != (2, 4) or sm not in SPARSE_KERNELS:
        return None, f"no engine has {kept}:{of} kernels for this card: nothing is saved"
    return HALF_BITS, "half the values and two index bits each"


def _narrower(whole: Shape, kept: float) -> Shape:
    return whole._replace(mixing=whole.mixing * kept, dense=whole.dense * kept, expert=whole.expert * kept)


def _shorter(whole: Shape, gone: int) -> Shape:
    kept = 1 - gone / whole.layers
    parts = tuple(part._replace(layers=max(1, round(part.layers * kept))) for part in whole.attentions)
    return _narrower(whole, kept)._replace(
        layers=whole.layers - gone, attentions=parts, expert_layers=round(whole.expert_layers * kept)
    )


def _effect(method: str, size: Shape, form: formats.Format, speed: Speed, base: Speed | None,
            note: str = "") -> Effect:  # fmt: skip
    total = size.mixing + size.dense + size.plain + size.resident + size.expert * size.experts
    now, before = speed.output_tokens_per_s.likely, (base or speed).output_tokens_per_s.likely
    published = accuracy(method, size.id)
    return Effect(method, total, layout.stored_bytes(size, form), speed, now / before, published, note)


@cache
def _accuracies() -> tuple[Accuracy, ...]:
    return tuple(Accuracy(**row) for row in files.table(__file__, "data/accuracy.json")["rows"])
