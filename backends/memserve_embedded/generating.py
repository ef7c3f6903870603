"""The embedded generator: a small chat model, several sequences side by side, every step exact."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import numpy as np

from memserve.errors import Closed, EngineFailed, MemserveError
from memserve.extras import need
from memserve.protocol import (
    Completion,
    Delta,
    FinishReason,
    Request,
    Sample,
    Score,
    ScorePrompts,
    TokenLogprob,
    Usage,
)
from memserve.tokens.detokenizer import Detokenizer
from memserve.tokens.prompts import Prompts
from memserve.tokens.score_pair import ScorePair
from memserve.tokens.tokenizing import Tokenizing
from memserve_embedded.capabilities import GENERATING
from memserve_embedded.convert import prepare
from memserve_embedded.fetch import known, ready
from memserve_embedded.sampling import choose, log_softmax, logprob
from memserve_embedded.session import GAP, Session
from memserve_embedded.tokenizer import EmbeddedTokenizer

CONTEXT = 2048
"""Unless asked: two cores read so much in seconds; the model can take 8,192."""
ROWS = 16
"""Sequences decoded side by side."""
POSITIONS = 16 * 4096
"""Positions of all of them together."""


@dataclass(eq=False)
class Row:
    """One sample in the making."""

    request: Request
    random: Random
    text: Detokenizer
    most: int
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


class EmbeddedGenerator(Tokenizing):
    """One small model in this process. Calls take turns."""

    fills_max_tokens = True

    def __init__(self, session: Session, tokenizer: EmbeddedTokenizer, engine: str, context: int) -> None:
        weights = known("smollm2")
        self.capabilities = replace(
            GENERATING, engine=engine, model=weights.model, context=context, thinking=frozenset({"off"}),
            template=True,
        )  # fmt: skip
        self.identity = {"package": weights.package, "version": weights.version}
        self._session: Session | None = session
        self._tokenizer = tokenizer
        self._prompts = Prompts(
            tokenizer, vocabulary=tokenizer.vocabulary, context=context, path=weights.package,
            backend="embedded",
        )  # fmt: skip
        self._turn = threading.Lock()
        self._ending = False

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests; one that fails alone carries its error."""
        asked = [self._asked(request) for request in requests]
        with self._mine() as session:
            for group in groups([one for one in asked if one.error is None]):
                for rows in portions(group):
                    for _ in self._run(session, rows):
                        pass
        return [self._completion(one) for one in asked]

    def stream(self, request: Request) -> Iterator[Delta]:
        """One answer piece by piece."""
        one = self._asked(request, live=True)
        if one.error:
            raise one.error
        with self._mine() as session:
            row = one.rows[0]
            for _ in self._run(session, [(one, row)]):
                if row.finish:
                    row.text.finish()
                    piece = row.text.fresh(last=True)
                    yield Delta(piece, row.finish, _usage(one), row.text.fresh_thought())
                elif delta := row.text.delta():
                    yield delta

    def score(self, pairs: Sequence[ScorePrompts]) -> list[Score]:
        """Log-likelihood of each continuation after its context."""
        prepared = self._pairs(pairs)
        with self._mine() as session:
            return [_score(session, pair) for pair in prepared]

    def interrupt(self) -> None:
        """End what runs after its current token, with `Closed`."""
        self._ending = True

    def close(self) -> None:
        """Let the model go; a second call does nothing."""
        with self._turn:
            self._session = None

    # ------------------------------------------------------------ requests in

    def _asked(self, request: Request, *, live: bool = False) -> Asked:
        try:
            prepared = self._prompts.prepare(request)
        except MemserveError as error:
            return Asked(request, [], 0, error)
        one = Asked(request, prepared.ids, prepared.most)
        for index in range(request.n):
            random = Random() if request.seed is None else Random(f"{request.seed}/{index}")
            text = self._prompts.detokenizer(request, prepared, live=live)
            one.rows.append(Row(request, random, text, prepared.most))
        return one

    @contextmanager
    def _mine(self) -> Iterator[Session]:
        """The session, for one caller at a time; what OpenVINO raises comes out as `EngineFailed`."""
        with self._turn:
            if self._session is None:
                raise Closed("this engine was closed")
            try:
                yield self._session
            except RuntimeError as error:
                raise EngineFailed(f"OpenVINO failed: {(str(error).splitlines() or [''])[0]}") from error
            finally:
                self._session.clear()

    # ------------------------------------------------------------ tokens out

    def _run(self, session: Session, portion: Sequence[tuple[Asked, Row]]) -> Iterator[None]:
        """Decode rows to their end, token by token; each prompt is read once."""
        group = list(dict.fromkeys(one for one, _ in portion))
        logits = session.start([one.prompt for one in group])
        rows = [row for _, row in portion]
        places = [group.index(one) for one, _ in portion]
        while rows:
            if self._ending:
                raise Closed("the engine was closed before it answered", hint="open a new one")
            tokens = [self._take(row, logits[place]) for row, place in zip(rows, places, strict=True)]
            yield
            going = [i for i, row in enumerate(rows) if row.finish is None]
            if not going:
                return
            session.keep([places[i] for i in going])
            logits = session.step([tokens[i] for i in going])
            rows = [rows[i] for i in going]
            places = list(range(len(rows)))

    def _take(self, row: Row, logits: Any) -> int:
        forced = row.text.forced()
        token = choose(logits, row.request, row.random) if forced is None else forced
        row.tokens.append(token)
        if row.request.logprobs is not None:
            row.logprobs.append(logprob(logits, token, row.request.logprobs, self._tokenizer))
        if token == self._tokenizer.eos_token_id:
            row.finish = "stop"
            return token
        row.text.push(token)
        if row.text.stopped:
            row.finish = "stop"
        elif len(row.tokens) >= row.most:
            row.finish = "length"
        return token

    def _completion(self, one: Asked) -> Completion:
        if one.error:
            return Completion(None, error=one.error, model=self.capabilities.model, request_id=one.request.id)
        samples = tuple(_sample(row) for row in one.rows)
        first = samples[0]
        return Completion(
            first.text, first.finish_reason, first.token_ids, first.logprobs, usage=_usage(one),
            reasoning=first.reasoning,
            samples=samples if len(samples) > 1 else (), model=self.capabilities.model,
            request_id=one.request.id,
        )  # fmt: skip


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


def _sample(row: Row) -> Sample:
    logprobs = tuple(row.logprobs) if row.request.logprobs is not None else None
    text = row.text.finish()
    return Sample(text, row.finish, tuple(row.tokens), logprobs, reasoning=row.text.reasoning)


def _usage(one: Asked) -> Usage:
    return Usage(len(one.prompt), sum(len(row.tokens) for row in one.rows), 0)


def _score(session: Session, pair: ScorePair) -> Score:
    total, greedy = 0.0, True
    for first, logits in session.read(pair.read):
        last = first + len(logits)
        start = max(first, pair.start - 1)
        if start < last:
            own, wanted = logits[start - first : last - first], np.array(pair.tokens[start + 1 : last + 1])
            total += float(log_softmax(own)[np.arange(len(wanted)), wanted].sum())
            greedy = greedy and bool((own.argmax(axis=-1) == wanted).all())
    return Score(total, pair.count, greedy)


def generating(threads: int | None, context: int | None) -> EmbeddedGenerator:
    """Fetch the weights if they are not here yet, and start."""
    version = need("embedded", "openvino", "openvino-genai").get_version().partition("-")[0]
    folder = ready("smollm2", prepare)
    tokenizer = EmbeddedTokenizer(folder)
    context = min(context or CONTEXT, tokenizer.context)
    return EmbeddedGenerator(Session(folder, threads), tokenizer, f"openvino {version}", context)
