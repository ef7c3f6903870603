"""Decodes each row in passes of its own: slower than slots, and right for every architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from memserve_hf.decoding.head import Head
from memserve_hf.decoding.row import Job, Row
from memserve_hf.decoding.slots import cache_argument

if TYPE_CHECKING:
    from torch import Tensor


class Singles:
    """Every row with the cache that the model itself makes; without one, each pass reads all tokens."""

    def __init__(self, model: Any, head: Head, *, device: torch.device, cached: bool = True) -> None:
        self.model, self.head, self.device = model, head, device
        self.name = cache_argument(model) if cached else None
        self.rows: list[Row] = []
        self._caches: dict[int, Any] = {}

    def ahead(self, job: Job) -> int:
        return 0

    def prefill(self, rows: Sequence[Row]) -> Tensor:
        logits = []
        for row in rows:
            row.length = len(row.job.prompt)
            last, self._caches[id(row)] = self.run(row.job.prompt, None)
            logits.append(last)
            self.rows.append(row)
        return torch.stack(logits)

    def clone(self, row: Row) -> None:
        self.prefill([row])

    def decode(self) -> Tensor:
        logits = []
        for row in self.rows:
            tokens = [row.last] if self.name else [*row.job.prompt, *row.tokens]
            last, self._caches[id(row)] = self.run(tokens, self._caches[id(row)])
            logits.append(last)
            row.length += 1
        return torch.stack(logits)

    def drop(self, row: Row) -> None:
        self.rows.remove(row)
        del self._caches[id(row)]

    def clear(self) -> None:
        self.rows.clear()
        self._caches.clear()

    def run(self, tokens: list[int], cache: Any) -> tuple[Tensor, Any]:
        """The logits after the tokens, and the cache that goes on from there."""
        own = {self.name: cache} if self.name and cache is not None else {}
        with self.head.keeping([[len(tokens) - 1]]):
            out = self.model(
                input_ids=torch.tensor([tokens], device=self.device), use_cache=self.name is not None, **own
            )
        return out.logits[0, -1], getattr(out, self.name) if self.name else None
