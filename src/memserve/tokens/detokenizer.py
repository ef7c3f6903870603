"""Tokens to text while they arrive: whole characters only, cut at the first stop string."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memserve.tokens.tokenizer import Tokenizer

_BROKEN = "\ufffd"


def decode(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """Text of an answer: special tokens left out, nothing tidied."""
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))


class Detokenizer:
    """The text of one answer. It decodes while tokens come only where somebody needs it to."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], *, live: bool) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._live = live or bool(stops)
        self._tokens: list[int] = []
        self._start = 0
        self._read = 0
        self._text = ""
        self._sent = 0
        self.stopped = False

    def push(self, token: int) -> None:
        """Take one more token; `stopped` tells whether a stop string is complete."""
        self._tokens.append(token)
        if self._live and not self.stopped:
            self._take(self._new())

    def finish(self) -> str:
        """The whole text, once no token will follow."""
        if not self._live:
            self._text = decode(self._tokenizer, self._tokens)
        elif not self.stopped:
            self._take(self._new(last=True))
        return self._text

    def fresh(self, *, last: bool) -> str:
        """What can be shown since the last call: never the beginning of a stop string."""
        end = len(self._text) if last or self.stopped else len(self._text) - self._held()
        piece, self._sent = self._text[self._sent : end], max(end, self._sent)
        return piece

    def _take(self, new: str) -> None:
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
        before = decode(self._tokenizer, self._tokens[self._start : self._read])
        both = decode(self._tokenizer, self._tokens[self._start :])
        if len(both) <= len(before) or (both.endswith(_BROKEN) and not last):
            return ""
        self._start, self._read = self._read, len(self._tokens)
        return both[len(before) :]

    def _held(self) -> int:
        """Length of the longest ending that a stop string could begin with."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._text)), 0, -1):
            if any(stop.startswith(self._text[-length:]) for stop in self._stops):
                return length
        return 0
