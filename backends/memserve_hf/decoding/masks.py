"""Attention masks for rows that stand at different positions: a slot's index is its token's position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
KINDS = frozenset({FULL, SLIDING, CHUNKED})


class Masks:
    """Builds what one model takes as `attention_mask`: one 4D tensor, or one for each kind of layer."""

    def __init__(self, config: Any, dtype: torch.dtype, *, boolean: bool) -> None:
        self.kinds = sorted(set(layer_kinds(config)))
        self.window = getattr(config, "sliding_window", None)
        self.chunk = getattr(config, "attention_chunk_size", None)
        self.dtype = dtype
        self.boolean = boolean

    def build(self, positions: Tensor, end: int) -> Any:
        """The mask for queries at `positions` [rows, width] over keys 0..end-1."""
        keys = torch.arange(end, device=positions.device)
        made = {kind: self._finish(self._allowed(kind, positions[:, :, None], keys)) for kind in self.kinds}
        return made if len(made) > 1 else next(iter(made.values()))

    def _allowed(self, kind: str, queries: Tensor, keys: Tensor) -> Tensor:
        seen = keys <= queries
        if kind == SLIDING and self.window:
            return seen & (keys > queries - self.window)
        if kind == CHUNKED and self.chunk:
            return seen & (keys // self.chunk == queries // self.chunk)
        return seen

    def _finish(self, allowed: Tensor) -> Tensor:
        allowed = allowed[:, None]
        if self.boolean:
            return allowed
        lowest = torch.finfo(self.dtype).min
        blank = torch.zeros((), dtype=self.dtype, device=allowed.device)
        return torch.where(allowed, blank, blank + lowest)


def layer_kinds(config: Any) -> list[str]:
    """The attention kind of every layer, as transformers' own caches see it."""
    from transformers.cache_utils import get_layer_types_and_kwargs

    kinds, _ = get_layer_types_and_kwargs(config)
    return [str(kind) for kind in kinds]
