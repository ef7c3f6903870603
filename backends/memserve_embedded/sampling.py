"""From logits to a token, for one row: greedy, or one uniform number from the row's own generator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from memserve.protocol import Request, TokenLogprob

if TYPE_CHECKING:
    from random import Random

    from numpy.typing import NDArray

_COLDEST = 1e-5


def choose(logits: NDArray[np.float32], request: Request, random: Random) -> int:
    """The next token, as the request's settings say."""
    if not request.temperature:
        return int(logits.argmax())
    order = np.argsort(-logits, kind="stable")
    chances = _softmax(logits[order].astype(np.float64) / max(request.temperature, _COLDEST))
    before = chances.cumsum() - chances
    kept = before < (1.0 if request.top_p is None else request.top_p)
    if request.top_k:
        kept[request.top_k :] = False
    if request.min_p:
        kept &= chances >= request.min_p * chances[0]
    kept[0] = True
    total = (chances * kept).cumsum()
    at = int(np.searchsorted(total, random.random() * total[-1], side="right"))
    return int(order[min(at, int(kept.sum()) - 1)])


def logprob(logits: NDArray[np.float32], token: int, count: int, tokenizer: Any) -> TokenLogprob:
    """The token's natural-log probability and its `count` strongest rivals."""
    scores = log_softmax(logits)
    top = np.argsort(-scores, kind="stable")[:count]
    rivals = tuple((tokenizer.decode([int(t)]), float(scores[t])) for t in top)
    return TokenLogprob(tokenizer.decode([token]), float(scores[token]), token, rivals)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural-log probabilities along the last axis."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return result


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max())
    result: NDArray[np.float64] = powers / powers.sum()
    return result
