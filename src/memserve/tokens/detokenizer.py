"""Tokens to text while they arrive: whole characters, thought apart from answer, cut at a stop string."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Protocol

from memserve.protocol import Delta, FinishReason, Sample, TokenLogprob, ToolCall, Usage
from memserve.tokens.calling import Calling, CallSplitter
from memserve.tokens.thinking import Thinking, ThoughtSplitter, beginning


class Tokenizer(Protocol):
    """Text to token ids and back, with the checkpoint's own chat template."""

    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def eos_token_id(self) -> int | None: ...
    def encode(self, text: str, /, *, add_special_tokens: bool = ...) -> list[int]: ...
    def decode(self, ids: Sequence[int], /, *, skip_special_tokens: bool = ...,
               clean_up_tokenization_spaces: bool = ...) -> str: ...  # fmt: skip
    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]], /, *, tokenize: bool,
                            add_generation_prompt: bool) -> str: ...  # fmt: skip


_BROKEN = "\ufffd"


def decode(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """Text of an answer: special tokens left out, nothing tidied."""
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


class Detokenizer:
    """The text of one answer. It decodes while tokens come only where somebody needs it to.

    Stop strings are looked for in the answer, not in the thought before it.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], *, live: bool,
                 thinking: Thinking | None = None, inside: bool = False, budget: int | None = None,
                 calling: Calling | None = None) -> None:  # fmt: skip
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._live = live or bool(stops) or thinking is not None or calling is not None
        self._tokens: list[int] = []
        self._start = 0
        self._read = 0
        self._text = ""
        self._sent = 0
        self.stopped = False
        self._thinking = thinking
        self._calls = CallSplitter(calling) if calling else None
        marks, read = (calling.marks, calling.read) if calling else ((), bool)
        self._splitter = (
            ThoughtSplitter(thinking.family, inside=inside, marks=marks, calls=read) if thinking else None
        )
        self._marks = {**(thinking.kept if thinking else {}), **(calling.kept if calling else {})}
        self._thought = ""
        self._thought_sent = 0
        self._thought_end: int | None = None
        """Tokens made when the answer began."""
        self._budget = budget
        self._closing: list[int] = []

    @property
    def answering(self) -> bool:
        """Whether the answer has begun: a grammar binds it alone."""
        return self._splitter is None or self._splitter.answering

    @property
    def reasoning(self) -> str | None:
        """The thought so far; None where there is none."""
        return self._thought or None

    @property
    def reasoning_tokens(self) -> int | None:
        """Tokens of the thought with its tags; None for a model that does not think."""
        if self._splitter is None:
            return None
        if not self._splitter.thought:
            return 0
        return len(self._tokens) if self._thought_end is None else self._thought_end

    def forced(self) -> int | None:
        """The token that must come next, where the thought has used up its budget."""
        if self._closing:
            return self._closing.pop(0)
        spent = self._splitter is not None and self._splitter.thinking and self._budget is not None
        if not spent or len(self._tokens) < (self._budget or 0) or self._thinking is None:
            return None
        self._closing = self._tokenizer.encode(self._thinking.closing, add_special_tokens=False)
        return self._closing.pop(0)

    def push(self, token: int) -> None:
        """Take one more token; `stopped` tells whether a stop string is complete."""
        self._tokens.append(token)
        if self._live and not self.stopped:
            self._take(self._new())

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls of tools, once the answer is whole."""
        return self._calls.calls if self._calls else ()

    def sample(self, finish: FinishReason | None, ids: Sequence[int],
               logprobs: Sequence[TokenLogprob] | None) -> Sample:  # fmt: skip
        """The whole answer, once no token will follow."""
        text, told = self.finish(), None if logprobs is None else tuple(logprobs)
        return Sample(text, self._reason(finish), tuple(ids), told, self.calls, self.reasoning)

    def last(self, finish: FinishReason | None, spent: Usage | None) -> Delta:
        """The last piece of a streamed answer."""
        self.finish()
        used = spent and replace(spent, reasoning_tokens=self.reasoning_tokens)
        return Delta(self.fresh(last=True), self._reason(finish), used, self.fresh_thought(), self.calls)

    def _reason(self, finish: FinishReason | None) -> FinishReason | None:
        return "tool_calls" if self.calls and finish == "stop" else finish

    def finish(self) -> str | None:
        """The whole answer, once no token will follow; None where all of it was thought or calls."""
        if not self._live:
            self._text = self._decoded(self._tokens)
        elif not self.stopped:
            self._take(self._new(last=True), last=True)
        silent = (self._splitter and self._splitter.thinking) or (self.calls and not self._text)
        return None if silent else self._text

    def fresh(self, *, last: bool) -> str:
        """What of the answer can be shown since the last call: never the beginning of a stop string."""
        end = len(self._text)
        if not last and not self.stopped:
            end -= beginning(self._text, self._stops)
        piece, self._sent = self._text[self._sent : end], max(end, self._sent)
        return piece

    def delta(self) -> Delta | None:
        """What is new, thought or answer, while more is to come."""
        piece, thought = self.fresh(last=False), self.fresh_thought()
        return Delta(piece, reasoning=thought) if piece or thought else None

    def read(self, tokens: Sequence[int], finish: FinishReason | None, spent: Usage | None) -> Delta:
        """More tokens of an engine that streams them; a finish reason comes with the last."""
        for token in tokens:
            if not self.stopped:
                self.push(token)
        if self.stopped or finish is not None:
            return self.last("stop" if self.stopped else finish, spent)
        return Delta(self.fresh(last=False), reasoning=self.fresh_thought())

    def fresh_thought(self) -> str:
        """What of the thought is new since the last call."""
        piece, self._thought_sent = self._thought[self._thought_sent :], len(self._thought)
        return piece

    def _take(self, new: str, *, last: bool = False) -> None:
        if self._splitter is not None:
            thought, new = self._splitter.push(new, last=last)
            self._thought += thought
            if self._thought_end is None and self._splitter.answering:
                self._thought_end = len(self._tokens)
        if self._calls is not None and (new or last) and self.answering:
            new = self._calls.push(new, last=last)
        if not new:
            return
        start = max(0, len(self._text) - max((len(stop) for stop in self._stops), default=0) + 1)
        self._text += new
        hits = [at for stop in self._stops if (at := self._text.find(stop, start)) >= 0]
        if hits:
            self._text = self._text[: min(hits)]
            self.stopped = True

    def _new(self, *, last: bool = False) -> str:
        """Text of the tokens since the last whole character, seen in their context."""
        before = self._decoded(self._tokens[self._start : self._read])
        both = self._decoded(self._tokens[self._start :])
        if len(both) <= len(before) or (both.endswith(_BROKEN) and not last):
            return ""
        self._start, self._read = self._read, len(self._tokens)
        return both[len(before) :]

    def _decoded(self, tokens: Sequence[int]) -> str:
        """Their text, with the marks of thoughts and calls that decoding would leave out as special."""
        if not any(token in self._marks for token in tokens):
            return decode(self._tokenizer, tokens)
        runs = groupby(tokens, key=self._marks.get)
        parts = (mark * len(list(run)) if mark else decode(self._tokenizer, list(run)) for mark, run in runs)
        return "".join(parts)
