"""One token from logits: the likeliest, or a draw from what temperature, top_k, top_p and min_p leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from memserve.protocol import Request, TokenLogprob

if TYPE_CHECKING:
    from numpy.typing import NDArray


def logprobs(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural-log probabilities."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    shifted: NDArray[np.float64] = wide - np.log(np.exp(wide).sum())
    return shifted


class Sampler:
    """Draws for one sample of one request, with a seed of its own."""

    def __init__(self, request: Request, index: int) -> None:
        self._request = request
        seed = None if request.seed is None else [abs(request.seed), index]
        self._draw = np.random.default_rng(seed)

    def pick(self, logits: NDArray[np.float32]) -> int:
        """The next token."""
        temperature = self._request.temperature or 0.0
        if temperature == 0:
            return int(np.argmax(logits))
        order = np.argsort(logits)[::-1]
        if self._request.top_k:
            order = order[: self._request.top_k]
        scaled = (logits[order].astype(np.float64) - float(logits[order[0]])) / temperature
        weights = np.exp(scaled)
        weights = weights * (weights >= (self._request.min_p or 0.0))
        weights = weights / weights.sum()
        if self._request.top_p is not None and self._request.top_p < 1:
            inside = np.cumsum(weights) - weights < self._request.top_p
            weights = weights * inside / (weights * inside).sum()
        return int(self._draw.choice(order, p=weights))


def told(token: int, logits: NDArray[np.float32], top: int, word: Callable[[int], str]) -> TokenLogprob:
    """What is known of one generated token."""
    row = logprobs(logits)
    best = np.argsort(row)[::-1][:top]
    rivals = tuple((word(int(t)), float(row[t])) for t in best)
    return TokenLogprob(word(token), float(row[token]), token, rivals)
