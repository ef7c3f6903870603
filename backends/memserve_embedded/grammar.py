"""What an answer must keep, as masks on the next token, through llguidance."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memserve.errors import InvalidInput
from memserve.missing import need
from memserve.protocol import Request
from memserve.tokens.calling import Calling
from memserve.tokens.grammar import written
from memserve.tokens.prompts import Prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ODD, _SAID = r"(?s)\\.|/|\n", {"/": r"\/", "\n": r"\n", "\\\n": r"\n", r"\d": "[0-9]"}
"""What would end a regex here, and digits, which are those of every script otherwise."""
_SPACES = {"whitespace_flexible": False, "key_separator": ": ", "item_separator": ", "}
"""JSON comes on one line: free white space lets a small model emit it for ever."""


class Grammars:
    """Grammars for one tokenizer."""

    def __init__(self, tokenizer: Path, end: int) -> None:
        self._path, self._end = tokenizer, end

    def matcher(self, request: Request, prepared: Prepared) -> Matcher | None:
        """The state of one answer in what it must keep; None where that is nothing."""
        source = _lark(request, prepared.calling)
        if source is None:
            return None
        state = self._library.LLMatcher(self._tokenizer, source)
        if state.is_error():
            words = " ".join(state.get_error().split())[:200]
            raise InvalidInput(f"what the answer must keep cannot be enforced: {words}")
        return Matcher(state)

    @cached_property
    def _library(self) -> Any:
        return need("embedded", "llguidance")

    @cached_property
    def _tokenizer(self) -> Any:
        return self._library.LLTokenizer(self._path.read_text(encoding="utf-8"), eos_token=self._end)


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def masked(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits, with every token forbidden that the grammar does not allow next."""
        bits = np.unpackbits(np.frombuffer(self._state.compute_bitmask(), np.uint8), bitorder="little")
        return np.where(bits[: len(logits)], logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        """Move on by one token."""
        self._state.consume_token(token)


def _lark(request: Request, calling: Calling | None) -> str | None:
    own = None
    if request.schema is not None:
        own = _json(request.schema)
    elif request.regex is not None or request.choices:
        wanted = request.regex or "|".join(map(re.escape, request.choices or ()))
        own = f"/{re.sub(_ODD, lambda one: _SAID.get(one[0], one[0]), wanted)}/"
    if calling is None:
        return own and f"start: {own}\n"
    calls = [f"{_words(begin)} {_json(schema)} {_words(end)}" for begin, schema, end in written(calling)]
    family = calling.family
    more = "" if calling.once else f" ({_words(family.between)} call)*"
    rules = [f"call: {' | '.join(calls)}"]
    if calling.forced:
        return "\n".join([f"start: call{more}", *rules])
    if own is not None:
        return "\n".join([f"start: call{more} | {own}", *rules])
    return _free(family.triggers[0], [(begin, schema, end) for begin, schema, end in written(calling)])


def _free(trigger: str, calls: list[tuple[str, Mapping[str, Any], str]]) -> str:
    """Any text, in which what begins like a call becomes one."""
    after = " | ".join(
        f"{_words(begin.removeprefix(trigger))} {_json(schema)} {_words(end)}" for begin, schema, end in calls
    )
    return (
        f"start: (begun call)* TEXT\nTEXT: /(.|\\n)*/\nbegun[lazy]: TEXT {_words(trigger)}\ncall: {after}\n"
    )


def _json(schema: Mapping[str, Any]) -> str:
    return "%json " + json.dumps({**schema, "x-guidance": _SPACES})


def _words(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
