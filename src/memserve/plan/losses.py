"""How much quality each way of holding weights and KV cache costs, as an order; data/losses.json."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import files

if TYPE_CHECKING:
    from memserve.plan.candidate import Checkpoint

_DATA = files.table(__file__, "losses.json")
WEIGHTS: dict[str, int] = _DATA["weights"]
KV: dict[str, int] = _DATA["kv"]
PREFERRED: tuple[str, ...] = tuple(_DATA["preferred"])
OVERFLOWS: dict[str, list[str]] = _DATA["overflows"]
"""Models whose activations a dtype cannot hold."""
EIGHT_BIT: int = _DATA["eight_bit"]


def weight_loss(checkpoint: Checkpoint) -> int:
    """The order of a checkpoint's weights: 0 is 16 bit."""
    loss = WEIGHTS.get(checkpoint.quantization, 40)
    return min(loss, EIGHT_BIT) if checkpoint.bits == 8 else loss


def preference(quantization: str) -> int:
    """Between equals, the better supported first."""
    return PREFERRED.index(quantization) if quantization in PREFERRED else len(PREFERRED)
