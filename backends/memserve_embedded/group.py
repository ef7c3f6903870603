"""Which requests are decoded side by side: those of like length, as many as have space."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from random import Random

from memserve.errors import MemserveError
from memserve.protocol import Delta, FinishReason, Request, TokenLogprob
from memserve.tokens.detokenizer import Detokenizer
from memserve_embedded.grammar import Matcher
from memserve_embedded.session import GAP

ROWS = 16
"""Sequences decoded side by side."""
POSITIONS = 16 * 4096
"""Positions of all of them together."""
GATHER_SECONDS = 0.01
"""How long the first waits for another: a fraction of what its first token takes."""


@dataclass(eq=False)
class Row:
    """One sample in the making."""

    request: Request
    random: Random
    text: Detokenizer
    most: int
    matcher: Matcher | None = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None


@dataclass(eq=False)
class Asked:
    """One request with its prompt's tokens, and then its rows."""

    request: Request
    prompt: list[int]
    most: int
    error: MemserveError | None = None
    rows: list[Row] = field(default_factory=list)
    live: bool = False
    given_up: bool = False
    deltas: SimpleQueue[Delta | None] = field(default_factory=SimpleQueue)
    finished: threading.Event = field(default_factory=threading.Event)

    def end(self, error: MemserveError | None = None) -> None:
        """Everything is said, or this is why not: wake whoever waits."""
        self.error = self.error or error
        self.finished.set()
        self.deltas.put(None)


def groups(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Requests of like length together, the longest first, within `ROWS` and `POSITIONS`."""
    group: list[Asked] = []
    for one in sorted(asked, key=lambda one: len(one.prompt), reverse=True):
        rows = sum(other.request.n for other in group) + one.request.n
        reach = max(len(other.prompt) + other.most for other in [*group, one])
        gap = len(group[0].prompt) - len(one.prompt) if group else 0
        if group and (rows > ROWS or rows * reach > POSITIONS or gap >= GAP):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def portions(group: Sequence[Asked]) -> Iterator[list[tuple[Asked, Row]]]:
    """A group's rows; of many samples of one request, which is alone then, as many as have room."""
    rows = [(one, row) for one in group for row in one.rows]
    reach = max(len(one.prompt) + one.most for one in group)
    share = max(1, min(ROWS, POSITIONS // reach)) if len(group) == 1 else len(rows)
    for first in range(0, len(rows), share):
        yield rows[first : first + share]
