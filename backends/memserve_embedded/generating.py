"""The embedded generator: a small chat model, several sequences side by side, every step exact."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from memserve.client.offers import failure
from memserve.errors import Closed, EngineFailed, MemserveError
from memserve.missing import need
from memserve.protocol import (
    Completion,
    Delta,
    Request,
    Sample,
    Score,
    ScorePrompts,
    Usage,
)
from memserve.tokens.drawing import Told, choose, keys, log_softmax, told
from memserve.tokens.prompts import Prompts, ScorePair, Tokenizing
from memserve.tokens.template import compiled
from memserve_embedded import GENERATING, WHOLE
from memserve_embedded.fetch import known, prepare, ready
from memserve_embedded.grammar import Grammars
from memserve_embedded.session import GATHER_SECONDS, ROWS, Asked, Row, Session, groups, portions


class EmbeddedTokenizer:
    """tokenizer.json with its chat template."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        self.context = int(about["context"])
        self.bos_token_id = int(about["bos"])
        self.eos_token_id = int(about["eos"])
        tools = Path(__file__).with_name("tools.jinja").read_text(encoding="utf-8")
        self.chat_template = tools + str(about["chat_template"])
        self._tokenizer = need("embedded", "tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids; this checkpoint adds no BOS of its own."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False, **_: Any) -> str:
        """Text of token ids."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], **settings: Any) -> str:
        """The conversation as the model was taught to read it."""
        return str(self._template.render(messages=messages, **settings))

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self._tokenizer.get_vocab_size())

    @cached_property
    def _template(self) -> Any:
        need("embedded", "jinja2")
        return compiled(self.chat_template)


CONTEXT = 2048
"""Unless asked: two cores read so much in seconds; the model can take 8,192."""


class EmbeddedGenerator(Tokenizing):
    """One small model in this process. What waits meanwhile is decoded together, streams too."""

    concurrent = True
    fills_max_tokens = True

    def __init__(self, session: Session, tokenizer: EmbeddedTokenizer, grammars: Grammars, engine: str,
                 context: int) -> None:  # fmt: skip
        weights = known("smollm2")
        self.capabilities = replace(
            GENERATING, engine=engine, model=weights.model, context=context, thinking=frozenset({"off"}),
            template=True,
        )  # fmt: skip
        self.identity = {"package": weights.package, "version": weights.version}
        self._session: Session | None = session
        self._tokenizer, self._grammars = tokenizer, grammars
        self._prompts = Prompts(
            tokenizer, vocabulary=tokenizer.vocabulary, context=context, path=weights.package,
            backend="embedded",
        )  # fmt: skip
        self._turn = threading.Lock()
        self._wake = threading.Condition()
        self._waiting: list[Asked] = []
        self._going: set[Asked] = set()
        self._thread: threading.Thread | None = None
        self._ending = False

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests; one that fails alone carries its error."""
        asked = [self._asked(request) for request in requests]
        self._submit([one for one in asked if one.error is None])
        try:
            for one in asked:
                one.finished.wait()
        finally:
            self._going.difference_update(asked)
            for one in asked:  # of a call that was interrupted
                one.given_up = True
        return [self._completion(one) for one in asked]

    def stream(self, request: Request) -> Iterator[Delta]:
        """One answer piece by piece; closing the iterator gives the request up."""
        one = self._asked(request, live=True)
        if one.error is None:
            self._submit([one])
        try:
            while (delta := one.deltas.get()) is not None:
                yield delta
            if one.error:
                raise one.error
        finally:
            one.given_up = True

    def give_up(self, request: Request) -> None:
        """End a request that nobody waits for; the others of its call go on."""
        for one in tuple(self._going):
            one.given_up = one.given_up or one.request is request

    def score(self, pairs: Sequence[ScorePrompts]) -> list[Score]:
        """Log-likelihood of each continuation after its context."""
        prepared = self._pairs(pairs)
        with self._mine() as session:
            return [_score(session, pair, self._tokenizer) for pair in prepared]

    def interrupt(self) -> None:
        """End what runs after its current token, with `Closed`."""
        with self._wake:
            self._ending = True
            self._wake.notify()

    def close(self) -> None:
        """Let the model go; a second call does nothing."""
        self.interrupt()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        with self._turn:
            self._session = None

    # ------------------------------------------------------------ requests in

    def _asked(self, request: Request, *, live: bool = False) -> Asked:
        try:
            prepared = self._prompts.prepare(request)
            matchers = [self._grammars.matcher(request, prepared) for _ in range(request.n)]
        except MemserveError as error:
            one = Asked(request, [], 0)
            one.end(error)
            return one
        one = Asked(request, prepared.ids, prepared.most, live=live)
        for index in range(request.n):
            text = self._prompts.detokenizer(request, prepared, live=live)
            one.rows.append(Row(request, keys(request, index), text, prepared.most, matchers[index]))
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

    def _submit(self, asked: Sequence[Asked]) -> None:
        with self._wake:
            if self._ending:
                raise Closed("this engine was closed")
            self._waiting += asked
            self._going.update(asked)
            if self._thread is None or not self._thread.is_alive():  # no thread survives a fork
                self._thread = threading.Thread(target=self._work, name="memserve-embedded", daemon=True)
                self._thread.start()
            self._wake.notify()

    def _work(self) -> None:
        """Decode group after group until the end; what comes meanwhile may join the next."""
        while (group := self._next()) is not None:
            for portion in portions(group):
                self._decode(portion)

    def _next(self) -> list[Asked] | None:
        """Those of like length with whoever waits longest."""
        with self._wake:
            while not self._ending:
                while 0 < len(self._waiting) < ROWS and self._wake.wait(GATHER_SECONDS):
                    pass  # as long as more come: what starts now cannot be joined
                self._waiting = [one for one in self._waiting if not one.given_up]
                for group in groups(self._waiting):
                    if self._waiting[0] in group:
                        self._waiting = [one for one in self._waiting if one not in group]
                        return group
                self._wake.wait()
            for one in self._waiting:
                one.end(_closed())
        return None

    def _decode(self, portion: Sequence[tuple[Asked, Row]]) -> None:
        try:
            with self._mine() as session:
                self._run(session, portion)
        except Exception as broken:
            for one, _ in portion:
                one.end(failure(self, broken))

    def _run(self, session: Session, portion: Sequence[tuple[Asked, Row]]) -> None:
        """Decode rows to their end, token by token; each prompt is read once."""
        group = list(dict.fromkeys(one for one, _ in portion))
        logits = session.start([one.prompt for one in group])
        pairs, places = list(portion), [group.index(one) for one, _ in portion]
        while pairs:
            if self._ending:
                raise _closed()
            tokens = [self._take(*pair, logits[place]) for pair, place in zip(pairs, places, strict=True)]
            going = [i for i, (one, row) in enumerate(pairs) if row.finish is None and not one.given_up]
            if not going:
                return
            session.keep([places[i] for i in going])
            logits = session.step([tokens[i] for i in going])
            pairs = [pairs[i] for i in going]
            places = list(range(len(pairs)))

    def _take(self, one: Asked, row: Row, logits: Any) -> int:
        bound = row.matcher.masked(logits) if row.matcher else logits
        if row.request.extra.get(WHOLE) and not row.matcher:
            bound = logits.copy()
            bound[self._tokenizer.eos_token_id] = -np.inf
        token = choose(bound, row.request, row.random)
        if row.matcher:
            row.matcher.accept(token)
        row.tokens.append(token)
        if row.request.logprobs is not None:
            row.logprobs.append(told(token, logits, row.request.logprobs, self._tokenizer))
        if token == self._tokenizer.eos_token_id:
            row.finish = "stop"
        else:
            row.text.push(token)
            if row.text.stopped:
                row.finish = "stop"
            elif len(row.tokens) >= row.most:
                row.finish = "length"
        self._tell(one, row)
        return token

    def _tell(self, one: Asked, row: Row) -> None:
        if one.live and row.finish:
            one.deltas.put(row.text.last(row.finish, _usage(one)))
        elif one.live and (delta := row.text.delta()):
            one.deltas.put(delta)
        if row.finish and all(other.finish for other in one.rows):
            one.end()

    def _completion(self, one: Asked) -> Completion:
        if isinstance(one.error, Closed):
            raise one.error
        if one.error:
            return Completion(None, error=one.error, model=self.capabilities.model, request_id=one.request.id)
        return self._joined(one.request, [(_sample(row), None) for row in one.rows], _usage(one))


def _closed() -> Closed:
    return Closed("the engine was closed before it answered", hint="open a new one")


def _sample(row: Row) -> Sample:
    return row.text.sample(row.finish, row.tokens, row.logprobs if row.request.logprobs is not None else None)


def _usage(one: Asked) -> Usage:
    return Usage(len(one.prompt), sum(len(row.tokens) for row in one.rows), 0)


def _score(session: Session, pair: ScorePair, tokenizer: Any) -> Score:
    total, parts = 0.0, []
    for first, logits in session.read(pair.read):
        last = first + len(logits)
        start = max(first, pair.start - 1)
        if start < last:
            own, wanted = logits[start - first : last - first], np.array(pair.tokens[start + 1 : last + 1])
            scores, best, rows = log_softmax(own), own.argmax(axis=-1), np.arange(len(wanted))
            total += float(scores[rows, wanted].sum())
            parts.append((wanted, scores[rows, wanted], best, scores[rows, best]))
    tokens, values, best, most = (np.concatenate(column) for column in zip(*parts, strict=True))
    told = Told(tokenizer, tokens, values, best, most)
    return Score(total, pair.count, bool((best == tokens).all()), told)


def generating(threads: int | None, context: int | None) -> EmbeddedGenerator:
    """Fetch the weights if they are not here yet, and start."""
    version = need("embedded", "openvino", "openvino-genai").get_version().partition("-")[0]
    folder = ready("smollm2", prepare)
    tokenizer = EmbeddedTokenizer(folder)
    context = min(context or CONTEXT, tokenizer.context)
    grammars = Grammars(folder / "tokenizer.json", tokenizer.eos_token_id)
    return EmbeddedGenerator(Session(folder, threads), tokenizer, grammars, f"openvino {version}", context)
