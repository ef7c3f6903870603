"""One answer in the making, and the request that it belongs to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from memserve.errors import MemserveError
from memserve.protocol import (
    DEFAULT_TEMPERATURE,
    DEFAULT_TOP_P,
    Delta,
    FinishReason,
    Request,
    TokenLogprob,
    Usage,
)
from memserve.tokens.detokenizer import Detokenizer

if TYPE_CHECKING:
    from random import Random

WHOLE = "hf_ignore_eos"
"""A request's extra: answers as long as `max_tokens` says, which is how speed is measured."""


@dataclass(frozen=True)
class Settings:
    """A request's settings with every default filled in."""

    max_tokens: int
    temperature: float = DEFAULT_TEMPERATURE
    top_p: float = DEFAULT_TOP_P
    top_k: int = 0
    min_p: float = 0.0
    logprobs: int | None = None
    whole: bool = False
    """No token ends the answer before `max_tokens`."""

    @classmethod
    def of(cls, request: Request, max_tokens: int) -> Settings:
        """The settings of a request whose prompt leaves room for `max_tokens`."""
        temperature = DEFAULT_TEMPERATURE if request.temperature is None else request.temperature
        return cls(
            max_tokens=max_tokens, temperature=temperature,
            top_p=DEFAULT_TOP_P if request.top_p is None else request.top_p, top_k=request.top_k or 0,
            min_p=request.min_p or 0.0, logprobs=request.logprobs, whole=bool(request.extra.get(WHOLE)),
        )  # fmt: skip


@dataclass(eq=False)
class Job:
    """One request on its way, or some of its samples: its rows, and how the caller hears of them."""

    request: Request
    prompt: list[int]
    settings: Settings
    text: Callable[[], Detokenizer]
    """Makes what turns one sample's tokens into text."""
    grammar: Any = None
    """A compiled grammar that every row gets a matcher of."""
    streamed: bool = False
    first: int = 0
    """Of the request's samples, where these begin."""
    count: int = 1
    rows: list[Row] = field(default_factory=list)
    error: MemserveError | None = None
    cancelled: bool = False
    passed: int = 0
    """How often younger jobs went ahead."""
    seen: Any = None
    """What the model is shown besides the prompt's tokens, until the job is done."""
    names: tuple[bytes, ...] = ()
    """Names of the prompt's whole blocks, for the prefix cache."""
    deltas: SimpleQueue[Delta | None] = field(default_factory=SimpleQueue)
    finished: threading.Event = field(default_factory=threading.Event)

    def close(self, error: MemserveError | None = None) -> None:
        """Everything is said: wake whoever waits."""
        self.error = self.error or error
        self.seen = None
        self.finished.set()
        self.deltas.put(None)

    @property
    def usage(self) -> Usage:
        """Tokens without padding; the prompt counts once however many samples were drawn."""
        return usage([self])


def usage(parts: Sequence[Job]) -> Usage:
    """The same of a request whose samples were drawn in several parts."""
    rows = [row for job in parts for row in job.rows]
    cached = min((row.cached for row in parts[0].rows), default=0)
    thoughts = [spent for row in rows if (spent := row.text.reasoning_tokens) is not None]
    made = sum(len(row.tokens) for row in rows)
    return Usage(len(parts[0].prompt), made, cached, sum(thoughts) if thoughts else None)


@dataclass(eq=False)
class Row:
    """One sample of a job while it is decoded."""

    job: Job
    random: Random
    text: Detokenizer
    matcher: Any = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    cached: int = 0
    shift: int = 0
    """How far pictures move the positions of what follows them."""
    length: int = 0
    """Tokens whose keys and values are in the row's slot."""
    finish: FinishReason | None = None

    @property
    def last(self) -> int:
        """The token to feed next."""
        return self.tokens[-1]

    @property
    def reach(self) -> int:
        """The most positions that this row can come to need."""
        return len(self.job.prompt) + self.job.settings.max_tokens
