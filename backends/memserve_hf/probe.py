"""Asks a model whether decoding in slots gives its own logits, before the fast path is trusted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from memserve_hf.stepper import Slots

LENGTHS = (3, 5)
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}
"""Of the spread of the logits; a wrong mask or position is off by about the spread itself."""
log = logging.getLogger("memserve.hf")


def agrees(slots: Slots, vocabulary: int) -> bool:
    """Two prompts of unlike length and one more token each: slots against plain passes without a cache."""
    prompts = [[(7 + 13 * i + 5 * n) % vocabulary for i in range(n)] for n in LENGTHS]
    try:
        together = _in_slots(slots, prompts)
        alone = torch.stack([_plain(slots, prompt) for prompt in prompts])
    except (
        RuntimeError,
        TypeError,
        ValueError,
        AttributeError,
        KeyError,
        IndexError,
        NotImplementedError,
    ) as error:
        log.info("the slot cache does not work with this model: %s", error)
        return False
    finally:
        slots.clear()
    spread = float(alone.std()) or 1.0
    off = float((together - alone).abs().max()) / spread
    limit = TOLERANCE.get(slots.model.dtype, TOLERANCE[torch.bfloat16])
    log.debug("slot probe: off by %.2g of the spread, limit %.2g", off, limit)
    return off <= limit


def _in_slots(slots: Slots, prompts: list[list[int]]) -> Tensor:
    starts = [len(prompt) - 1 for prompt in prompts]
    longest = max(starts)
    padded = [prompt[:-1] + [prompt[0]] * (longest - len(prompt) + 1) for prompt in prompts]
    if slots.flash:
        for slot, prompt in enumerate(prompts):
            slots.run(slot, [0], [prompt[:-1]], [[0]])
    else:
        slots.run(0, [0] * len(prompts), padded, [[0]] * len(prompts))
    logits = slots.run(0, starts, [[prompt[-1]] for prompt in prompts], [[0]] * len(prompts))
    return logits[:, 0].float()


def _plain(slots: Slots, prompt: list[int]) -> Tensor:
    ids = torch.tensor([prompt], device=slots.device)
    logits: Tensor = slots.model(input_ids=ids, use_cache=False).logits
    return logits[0, -1].float()
