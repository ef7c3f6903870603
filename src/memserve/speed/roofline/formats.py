"""Quantizations as speed sees them: bytes that a step reads, and the arithmetic that the card does."""

import re
from functools import cache
from typing import Any, NamedTuple

from memserve import files
from memserve.errors import UnknownName
from memserve.hardware.machine import Card
from memserve.speed.roofline.shape import Shape


class Format(NamedTuple):
    """How the weights of matrix multiplications are held and multiplied."""

    name: str
    bits: float
    """Bits per weight, scales included."""
    dtype: str = "float16"
    """The card's arithmetic, where it has it."""
    experts_only: bool = False

    @property
    def weight_only(self) -> bool:
        """Activations stay in 16 bit, so large batches gain no arithmetic."""
        return self.bits < 16 and self.dtype == "float16"


PARTS = ("gptq-int8", "gptq", "awq", "nvfp4", "mxfp4", "w8a8", "w4a16", "fp8", "int8", "int4", "nf4")
"""Looked for inside longer names ("awq gemm", "int4(QAT weights)"), in this order."""


@cache
def _data() -> dict[str, Any]:
    return dict(files.table(__file__, "../data/formats.json"))


@cache
def _rows() -> dict[str, Format]:
    """Every format by each of its names."""
    found = {}
    for row in _data()["rows"]:
        made = Format(row["name"], row["bits"], row.get("dtype", "float16"))
        found.update(dict.fromkeys((row["name"], *row.get("also", ())), made))
    for name, bits in _data()["gguf"].items():
        found[f"gguf-{name}"] = Format(f"gguf-{name}", bits)
        found.setdefault(name, found[f"gguf-{name}"])
    return found


def names() -> tuple[str, ...]:
    """Every format once."""
    return tuple(dict.fromkeys(row.name for row in _rows().values()))


def of(name: str | None, shape: Shape, card: Card) -> Format:
    """The format of a quantization's name on this card; None: as the checkpoint is stored."""
    chosen = _scoped(_named(name if name is not None else (shape.stored or "none")), name, shape)
    return chosen._replace(dtype=_arithmetic(chosen, card))


@cache
def _named(name: str) -> Format:
    word = name.strip().lower().rstrip("?").replace("gguf_", "gguf-")
    found = _rows().get(word)
    if found:
        return found
    weights = re.search(r"(\d+(?:\.\d+)?)\s*(?:bpw|bit|-bit)", word)
    if weights and 1 <= float(weights.group(1)) <= 32:
        return Format(word, float(weights.group(1)))
    for known in PARTS:
        if known in word:
            return _rows()[known]
    raise UnknownName(
        f"unknown quantization {name!r}", hint=f"known: {', '.join(names()[:17])}, gguf-q4_k_m, ..."
    )


def _scoped(chosen: Format, asked: str | None, shape: Shape) -> Format:
    """4-bit floats and the stored 4-bit formats of MoE models cover the experts alone."""
    four = chosen.bits < 5 and bool(shape.experts)
    if asked and asked.lower() == "fp4":
        chosen = _rows()["mxfp4" if shape.stored == "mxfp4" else "nvfp4"]
    if four and shape.experts_only and shape.stored not in {None, "fp8"}:
        return chosen._replace(experts_only=True)
    return chosen


def _arithmetic(chosen: Format, card: Card) -> str:
    if chosen.bits >= 16:
        return chosen.dtype if chosen.dtype == "float32" else "float16"
    ladder = {"float4": ("float4", "float8"), "float8": ("float8",), "int8": ("int8",)}.get(chosen.dtype, ())
    if chosen.dtype == "float4" and "float4" not in card.flops:
        ladder = ()
    return next((kind for kind in ladder if card.flops.get(kind)), "float16")
