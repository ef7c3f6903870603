"""How much quality each way of holding weights and KV cache costs, as an order; data/losses.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memserve.plan.described import Checkpoint

_DATA = json.loads(Path(__file__).with_name("losses.json").read_text(encoding="utf-8"))
WEIGHTS: dict[str, int] = _DATA["weights"]
KV: dict[str, int] = _DATA["kv"]
PREFERRED: tuple[str, ...] = tuple(_DATA["preferred"])
EIGHT_BIT: int = _DATA["eight_bit"]


def weight_loss(checkpoint: Checkpoint) -> int:
    """The order of a checkpoint's weights: 0 is 16 bit."""
    loss = WEIGHTS.get(checkpoint.quantization, 40)
    return min(loss, EIGHT_BIT) if checkpoint.bits == 8 else loss


def preference(quantization: str) -> int:
    """Between equals, the better supported first."""
    return PREFERRED.index(quantization) if quantization in PREFERRED else len(PREFERRED)
