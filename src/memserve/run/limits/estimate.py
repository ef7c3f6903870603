"""Tokens and money of a request before its answer is known, corrected by what the answers say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memserve.protocol import DEFAULT_MAX_TOKENS

if TYPE_CHECKING:
    from memserve.protocol import Request, Usage
    from memserve.run.requests.item import Item

CHARACTERS_PER_TOKEN = 3.0
"""Where a run begins: English has about four, Chinese below two."""
WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one request is taken to cost."""

    prompt: float
    answer: float
    most: float
    """Answer tokens that it cannot exceed."""

    @property
    def total(self) -> float:
        """Prompt and answer."""
        return self.prompt + self.answer


NOTHING = Tokens(0.0, 0.0, 0.0)


class Estimate:
    """Learns characters per token and the usual length of an answer, as moving averages."""

    def __init__(self) -> None:
        self._per_character = 1 / CHARACTERS_PER_TOKEN
        self._answer: float | None = None

    def of(self, item: Item) -> Tokens:
        """The estimate for one item."""
        most = float(limit(item.request))
        answer = most if self._answer is None else min(most, self._answer * max(1, item.request.n))
        return Tokens(item.characters * self._per_character + 8, answer, most)

    def learn(self, item: Item, usage: Usage) -> None:
        """Correct by what an engine counted."""
        if usage.prompt_tokens and item.characters >= 32:
            seen = usage.prompt_tokens / item.characters
            self._per_character += WEIGHT * (seen - self._per_character)
        if usage.completion_tokens is not None:
            each = usage.completion_tokens / max(1, item.request.n)
            self._answer = each if self._answer is None else self._answer + WEIGHT * (each - self._answer)


def limit(request: Request) -> int:
    """Answer tokens that a request allows at most."""
    return (request.max_tokens or DEFAULT_MAX_TOKENS) * max(1, request.n)
