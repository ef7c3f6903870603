"""Log-likelihood of continuations: lm-eval's boundary rules, exact lengths, one pass for many pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from memserve.protocol import Score
from memserve.tokens.prompts import Prompts
from memserve.tokens.tokenizing import ScorePair
from memserve_hf.decoding.head import Head

if TYPE_CHECKING:
    from torch import Tensor

LOGITS = 1 << 26
"""Elements of one pass's logits, at most."""


class Scorer:
    """Scores pairs with one model."""

    def __init__(self, model: Any, head: Head, prompts: Prompts, *, device: torch.device, width: int) -> None:
        self.model, self.head, self.prompts, self.device, self.width = model, head, prompts, device, width

    def run(self, pairs: Sequence[ScorePair]) -> list[Score]:
        """Scores in the order of the pairs."""
        scores: dict[int, Score] = {}
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].tokens), reverse=True)
        for batch in self._batches(pairs, order):
            scores.update(zip(batch, self._score([pairs[i] for i in batch]), strict=True))
        return [scores[i] for i in range(len(pairs))]

    def _batches(self, pairs: Sequence[ScorePair], order: Sequence[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        longest = count = 0
        for i in order:
            longest, count = max(longest, len(pairs[i].tokens)), max(count, pairs[i].count)
            size = len(batch) + 1
            if batch and (size * longest > self.width or size * count * self.prompts.vocabulary > LOGITS):
                yield batch
                batch, longest, count = [], len(pairs[i].tokens), pairs[i].count
            batch.append(i)
        if batch:
            yield batch

    def _score(self, pairs: Sequence[ScorePair]) -> Iterator[Score]:
        count = max(pair.count for pair in pairs)
        keep = [[min(pair.start - 1 + k, len(pair.read) - 1) for k in range(count)] for pair in pairs]
        logits = self._logits(pairs, keep)
        for row, pair in zip(logits, pairs, strict=True):
            wanted = torch.tensor(pair.tokens[pair.start :], device=row.device)[:, None]
            scores = torch.log_softmax(row[: pair.count].float(), dim=-1)
            greedy = bool((row[: pair.count].argmax(dim=-1) == wanted[:, 0]).all())
            yield Score(float(scores.gather(1, wanted).double().sum()), pair.count, greedy)

    def _logits(self, pairs: Sequence[ScorePair], keep: list[list[int]]) -> Tensor:
        longest = max(len(pair.read) for pair in pairs)
        gaps = [longest - len(pair.read) for pair in pairs]
        padded = [[*pair.read, *[pair.tokens[-1]] * gap] for pair, gap in zip(pairs, gaps, strict=True)]
        mask = [[1] * (longest - gap) + [0] * gap for gap in gaps]
        with self.head.keeping(keep):
            logits = self.model(
                input_ids=torch.tensor(padded, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device) if any(gaps) else None,
                use_cache=False,
            ).logits
        return self.head.trim(logits, keep)
