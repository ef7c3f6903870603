"""Draws that company does not change: every token has a random number of its own, and the highest sum wins.

A point on the running sum of all chances would choose as fairly, but the rounding of any logit, which company
changes, would move it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from memserve.protocol import Request, TokenLogprob

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLDEST = 1e-5
"""A temperature below is taken as this."""
BITS = 63
"""Of a key."""
_STEP, _FIRST, _SECOND = (
    constant - (1 << 64) for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def keys(request: Request, index: int) -> Random:
    """Where the keys of one sample's tokens come from: `getrandbits(BITS)` for each."""
    return Random() if request.seed is None else Random(f"{request.seed}/{index}")


def noise(tokens: Any, key: Any, log: Callable[[Any], Any], log1p: Callable[[Any], Any]) -> Any:
    """Gumbel noise of tokens (64-bit integers) under a key that broadcasts with them, of numpy or of torch.

    A hash (splitmix64), so that a device makes it for all rows at once. What overflows is meant to.
    """
    mixed = tokens * _STEP + key
    mixed = (mixed ^ ((mixed >> 30) & (1 << 34) - 1)) * _FIRST
    mixed = (mixed ^ ((mixed >> 27) & (1 << 37) - 1)) * _SECOND
    mixed = mixed ^ ((mixed >> 31) & (1 << 33) - 1)
    chance = (((mixed >> 11) & (1 << 53) - 1) + 0.5) / (1 << 53)
    return -log(-log1p(-chance))


def choose(logits: NDArray[np.float32], request: Request, random: Random) -> int:
    """The next token, as the request's settings say."""
    if not request.temperature:
        return int(logits.argmax())
    scores = logits.astype(np.float64) / max(request.temperature, COLDEST)
    key = np.int64(random.getrandbits(BITS))
    drawn = scores + noise(np.arange(len(scores)), key, np.log, np.log1p)
    if request.top_k or request.min_p or request.top_p is not None:
        left = _left(scores, request)
        return int(left[drawn[left].argmax()])
    return int(drawn.argmax())


def _left(scores: NDArray[np.float64], request: Request) -> NDArray[np.int64]:
    """The tokens that top_p, top_k and min_p leave, the likeliest first."""
    order = np.argsort(-scores, kind="stable")
    chances = np.exp(log_softmax(scores[order]))
    kept = chances.cumsum() - chances < (1.0 if request.top_p is None else request.top_p)
    if request.top_k:
        kept[request.top_k :] = False
    if request.min_p:
        kept &= chances >= request.min_p * chances[0]
    kept[0] = True
    return order[kept]


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Natural-log probabilities along the last axis."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return result


def told(token: int, logits: NDArray[Any], count: int, tokenizer: Any) -> TokenLogprob:
    """What is known of one generated token: its log-probability, and its `count` strongest rivals."""
    scores = log_softmax(logits)
    best = np.argsort(-scores, kind="stable")[:count]

    rivals = tuple((_word(tokenizer, t), float(scores[t])) for t in best)
    return TokenLogprob(_word(tokenizer, token), float(scores[token]), token, rivals)


def _word(tokenizer: Any, token: Any) -> str:
    return str(tokenizer.decode([int(token)], skip_special_tokens=False))


class Told(Sequence[TokenLogprob]):
    """The tokens that were scored, each with the likeliest in its place: texts are made when one looks."""

    def __init__(self, tokenizer: Any, *columns: Any) -> None:
        """Columns: tokens, their log-probabilities, the likeliest tokens, theirs."""
        self._tokenizer, self._columns = tokenizer, columns

    def __len__(self) -> int:
        return len(self._columns[0])

    @overload
    def __getitem__(self, place: int) -> TokenLogprob: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[TokenLogprob]: ...
    def __getitem__(self, place: int | slice) -> TokenLogprob | Sequence[TokenLogprob]:
        if isinstance(place, slice):
            return Told(self._tokenizer, *(column[place] for column in self._columns))
        token, value, best, most = (column[place] for column in self._columns)
        word, top = (_word(self._tokenizer, one) for one in (token, best))
        if top == word and best != token:  # halves of characters look alike
            top = f"token_id:{best}"
        return TokenLogprob(word, float(value), int(token), ((top, float(most)),))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (list(self),)  # a tokenizer stays where it is
