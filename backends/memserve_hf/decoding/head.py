"""Makes the output head compute logits at the asked positions only, whatever the architecture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Head:
    """A hook before the output head that keeps, of each row, the positions of the current pass."""

    def __init__(self, model: Any) -> None:
        self._module = model.get_output_embeddings()
        self._keep: Tensor | None = None
        if self._module is not None:
            self._hook = self._module.register_forward_pre_hook(self._select)

    @contextmanager
    def keeping(self, positions: Sequence[Sequence[int]]) -> Iterator[None]:
        """During this pass the head sees, of row i, positions[i]; all rows keep equally many."""
        self._keep = torch.tensor(positions)
        try:
            yield
        finally:
            self._keep = None

    def trim(self, logits: Tensor, positions: Sequence[Sequence[int]]) -> Tensor:
        """The logits at the asked positions, where the model has no head to hook."""
        if logits.shape[1] == len(positions[0]):
            return logits
        return _pick(logits, torch.tensor(positions))

    def _select(self, _module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._keep is None or not args or args[0].dim() != 3:
            return None
        return (_pick(args[0], self._keep), *args[1:])


def _pick(states: Tensor, keep: Tensor) -> Tensor:
    index = keep.to(states.device)[:, :, None].expand(-1, -1, states.shape[-1])
    return states.gather(1, index)
