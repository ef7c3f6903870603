"""How much quality each way of holding weights and KV cache costs, as an order; data/losses.json."""

from bisect import bisect_right
from typing import Any

from memserve import files
from memserve.plan.candidate import Checkpoint

_DATA = files.table(__file__, "losses.json")
WEIGHTS: dict[str, int] = _DATA["weights"]
_STEPS: dict[str, Any] = _DATA["steps"]
KV: dict[str, int] = _STEPS["kv"]
BELOW_4_BIT: int = _STEPS["below_4_bit"]
"""The steps of weights that nobody is offered unasked."""
PREFERRED: tuple[str, ...] = tuple(_DATA["preferred"])
OVERFLOWS: dict[str, list[str]] = _DATA["overflows"]
"""Models whose activations a dtype cannot hold."""
EIGHT_BIT: int = _DATA["eight_bit"]


def weight_loss(checkpoint: Checkpoint) -> int:
    """The order of a checkpoint's weights: 0 is 16 bit."""
    loss = WEIGHTS.get(checkpoint.quantization, 40)
    return min(loss, EIGHT_BIT) if checkpoint.bits == 8 else loss


def steps(loss: int, kv_dtype: str) -> int:
    """Steps below 16 bits, as data/losses.json counts them: weights of that loss and their KV cache."""
    return bisect_right(_STEPS["weights"], loss) + KV.get(kv_dtype, 3)


def preference(quantization: str) -> int:
    """Between equals, the better supported first."""
    return PREFERRED.index(quantization) if quantization in PREFERRED else len(PREFERRED)
