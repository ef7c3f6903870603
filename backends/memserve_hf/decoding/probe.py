"""Asks a model whether a way of decoding gives its own logits, before that way is trusted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from memserve.errors import ModelUnreadable
from memserve_hf.decoding.singles import Singles
from memserve_hf.decoding.stepper import Slots

if TYPE_CHECKING:
    from torch import Tensor

LENGTHS = (3, 5)
LIKENESS = {torch.float32: 0.9999}
LIKENESS_OF_HALF = 0.97
"""Correlation of the logits; a wrong mask or position falls far below, rounding and expert routing do not."""
log = logging.getLogger("memserve.hf")
_REFUSALS = (
    RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError, NotImplementedError,
    AssertionError,
)  # fmt: skip


def agrees(stepper: Slots | Singles, vocabulary: int) -> bool:
    """Two prompts of unlike length and one more token each, against plain passes without a cache."""
    prompts = [[(7 + 13 * i + 5 * n) % vocabulary for i in range(n)] for n in LENGTHS]
    decode = _in_singles if isinstance(stepper, Singles) else _in_slots
    try:
        wanted = torch.stack([_plain(stepper, prompt) for prompt in prompts])
        _numbers(wanted, stepper.model)
        made = decode(stepper, prompts)  # type: ignore[arg-type]
    except _REFUSALS as error:
        log.info("%s does not work with this model: %s", type(stepper).__name__, error)
        return False
    finally:
        stepper.clear()
    likeness = min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(made, wanted, strict=True))
    log.debug("probe of %s: likeness %.5f", type(stepper).__name__, likeness)
    return likeness >= LIKENESS.get(stepper.model.dtype, LIKENESS_OF_HALF)


def _numbers(logits: Tensor, model: Any) -> None:
    """Refuse weights that make no numbers: they would answer with the vocabulary's first token for ever."""
    if torch.isnan(logits).any():
        raise ModelUnreadable(
            f"{model.name_or_path}: the logits are not numbers in {str(model.dtype)[6:]}",
            path=model.name_or_path, field="weights",
            hint="pass dtype='bfloat16' or 'float32'; if they stay so, the weights are damaged",
        )  # fmt: skip


def _in_singles(singles: Singles, prompts: list[list[int]]) -> Tensor:
    logits = []
    for prompt in prompts:
        _, cache = singles.run(prompt[:-1], None)
        logits.append(singles.run(prompt[-1:], cache)[0].float())
    return torch.stack(logits)


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


def _plain(stepper: Slots | Singles, prompt: list[int]) -> Tensor:
    ids = torch.tensor([prompt], device=stepper.device)
    logits: Tensor = stepper.model(input_ids=ids, use_cache=False).logits
    return logits[0, -1].float()
