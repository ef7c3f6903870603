"""Runs an encoder over texts: sorted by length, in batches of bounded size, without order lost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from memserve_hf.encoding.modules import Recipe
from memserve_hf.encoding.pooling import Dense, pool

if TYPE_CHECKING:
    from torch import Tensor

    Forward = Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor | None]]
    """Model inputs to (token states, pooler output)."""

_HUGE = 1 << 20
_ROWS = 128


@dataclass(frozen=True)
class Tokens:
    """One text as the model sees it."""

    ids: list[int]
    types: list[int] | None
    skipped: int = 0
    """Tokens at the beginning that do not count in pooling."""


class Encoder:
    """One encoder and its recipe."""

    def __init__(self, tokenizer: Any, recipe: Recipe, forward: Forward, *, device: torch.device,
                 longest: int | None, batch_tokens: int, allow_pickle: bool) -> None:  # fmt: skip
        self.tokenizer, self.recipe, self.forward, self.device = tokenizer, recipe, forward, device
        self.longest = _longest(tokenizer, recipe, longest)
        self.batch_tokens = batch_tokens
        self.heads = [
            Dense(folder, device, allow_pickle=allow_pickle) for folder in (*recipe.dense, *recipe.layer_norm)
        ]

    def encode(self, texts: Sequence[str], role: str | None) -> tuple[Tensor, int]:
        """Vectors [n, d] before normalization, and the tokens that were read."""
        prompt = self.recipe.prompt(role)
        tokens = self.tokenize([prompt + text for text in texts], prompt)
        vectors: list[Tensor] = []
        order: list[int] = []
        for batch in batches([len(t.ids) for t in tokens], self.batch_tokens):
            vectors.append(self._pooled([tokens[i] for i in batch]))
            order += batch
        places = torch.empty(len(order), dtype=torch.long)
        places[order] = torch.arange(len(order))
        return torch.cat(vectors)[places], sum(len(t.ids) for t in tokens)

    def tokenize(self, texts: Sequence[str], prompt: str = "") -> list[Tokens]:
        """Token ids with the tokenizer's own special tokens, cut at the longest input."""
        if self.recipe.lower:
            texts = [text.lower() for text in texts]
        skipped = 0 if self.recipe.include_prompt or not prompt else self._prompt_length(prompt)
        made = self.tokenizer(list(texts), truncation=True, max_length=self.longest, padding=False)
        types = made.get("token_type_ids")
        return [Tokens(ids, types[i] if types else None, skipped) for i, ids in enumerate(made["input_ids"])]

    def _prompt_length(self, prompt: str) -> int:
        ids = self.tokenizer([prompt])["input_ids"][0]
        closing = (self.tokenizer.sep_token_id, self.tokenizer.eos_token_id)
        return len(ids) - (1 if ids and ids[-1] in closing else 0)

    def _pooled(self, batch: Sequence[Tokens]) -> Tensor:
        inputs = pad(batch, self.tokenizer.pad_token_id or 0, self.device)
        states, pooler = self.forward(inputs)
        mask = inputs["attention_mask"]
        if batch[0].skipped:
            mask = mask.clone()
            mask[:, : batch[0].skipped] = 0
        vectors = pool(self.recipe.pooling, states, mask, pooler)
        for head in self.heads:
            vectors = head(vectors)
        return vectors.cpu()


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices in batches of like length, the longest first; each padded to at most `budget` tokens."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    start = 0
    while start < len(order):
        rows = max(1, min(_ROWS, budget // max(1, lengths[order[start]])))
        yield order[start : start + rows]
        start += rows


def pad(batch: Sequence[Tokens], filler: int, device: torch.device) -> dict[str, Tensor]:
    """Model inputs, padded on the right."""
    longest = max(len(row.ids) for row in batch)
    gaps = [longest - len(row.ids) for row in batch]
    columns = {
        "input_ids": [row.ids + [filler] * gap for row, gap in zip(batch, gaps, strict=True)],
        "attention_mask": [[1] * len(row.ids) + [0] * gap for row, gap in zip(batch, gaps, strict=True)],
    }
    if batch[0].types is not None:
        columns["token_type_ids"] = [
            (row.types or []) + [0] * gap for row, gap in zip(batch, gaps, strict=True)
        ]
    return {name: torch.tensor(rows, device=device) for name, rows in columns.items()}


def torch_forward(model: Any) -> Forward:
    """The plain way: the model itself."""

    def forward(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        out: Any = model(**inputs, return_dict=True)
        pooler: Tensor | None = getattr(out, "pooler_output", None)
        states: Tensor | None = getattr(out, "last_hidden_state", None)
        if states is None:
            assert pooler is not None
            states = pooler[:, None]
        return states, pooler

    return forward


def _longest(tokenizer: Any, recipe: Recipe, positions: int | None) -> int:
    own = getattr(tokenizer, "model_max_length", None) or _HUGE
    limits = [recipe.max_length or min(own, positions or _HUGE), positions or _HUGE]
    found = min(int(min(limit, sys.maxsize)) for limit in limits)
    return min(found, _HUGE)
