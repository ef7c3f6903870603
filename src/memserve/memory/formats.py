"""How weights lie in memory under each quantization, as data, and the bytes of one tensor in it."""

from functools import cache
from typing import NamedTuple

from memserve.model.catalogue import formats
from memserve.model.spec import ModelSpec, Quantization, Weight

DTYPE_BYTES = {"float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2}
UNTOUCHED = frozenset({"embedding", "position", "head", "router", "norm", "tower", "projector"})
"""Parts that a conversion of a 16-bit model leaves alone."""


class Format(NamedTuple):
    """Bits of a quantized weight and of what stands beside it."""

    method: str
    bits: float
    group: int = -1
    """Inputs that share a scale; -1: the whole row; 0: scales are inside `bits`."""
    scale_bits: float = 0.0
    zero_bits: float = 0.0
    index_bits: int = 0
    """Per input column: the group index of activation order."""
    block: tuple[int, int] | None = None
    covers: str = "linear"
    """linear, experts (only), or all (embeddings and head too)."""

    def beside(self, rows: int, columns: int) -> float:
        """Bytes of scales, zeros and indices beside a [rows, columns] matrix."""
        if self.block is not None:
            bits = -(-rows // self.block[0]) * -(-columns // self.block[1]) * 32.0
        elif self.group > 0:
            bits = rows * (columns / self.group) * (self.scale_bits + self.zero_bits)
        else:
            bits = rows * (self.scale_bits + self.zero_bits) if self.group else 0.0
        return (bits + columns * self.index_bits) / 8

    def replaces(self, weight: Weight) -> bool:
        """Whether this weight is held in the format when nothing is left out by name."""
        if self.covers == "all":
            return len(weight.shape) > 1
        if self.covers == "experts":
            return weight.part == "expert" and weight.linear
        return weight.linear and weight.part not in UNTOUCHED


@cache
def named(method: str) -> Format | None:
    """The usual layout of a method (as `gptq`: 4 bits, groups of 128); None: 16 bit or unknown."""
    row = formats().get(method)
    if row is None:
        return None
    return Format(
        method, row["bits"], group=row.get("group", -1), scale_bits=row.get("scale_bits", 0.0),
        zero_bits=row.get("zero_bits", 0.0), index_bits=row.get("index_bits", 0),
        covers=row.get("covers", "linear"),
    )  # fmt: skip


def of_checkpoint(stored: Quantization) -> Format | None:
    """The layout that a checkpoint's own config states."""
    usual = named(stored.method)
    if usual is None and stored.checkpoint_method == "gguf":
        return Format(stored.method, stored.bits, group=0, covers="all")
    if usual is None:
        return Format(stored.method, stored.bits, scale_bits=32.0) if stored.bits < 16 else None
    bits = stored.bits if stored.bits < 16 else usual.bits
    group = usual.group if stored.group_size is None else stored.group_size
    zeros = stored.zero_points or stored.checkpoint_method in ("gptq", "awq")
    return Format(
        stored.method, bits, group=group, scale_bits=usual.scale_bits, zero_bits=bits if zeros else 0.0,
        index_bits=usual.index_bits, block=stored.block, covers=usual.covers,
    )  # fmt: skip


def held(model: ModelSpec, quantization: str) -> Format | None:
    """The format of the linear weights: the checkpoint's own, else the one they are converted to."""
    if model.quantization is not None:
        return of_checkpoint(model.quantization)
    return named(quantization)
