"""Reads a streamed answer in the chat (or the older completions) shape."""

from collections.abc import Callable, Mapping
from typing import Any

from memserve.errors import ContentRefused, MemserveError
from memserve.http import body
from memserve.http.body import bad
from memserve.http.chat import answer
from memserve.http.engine import AnswerReader
from memserve.http.failure import Words
from memserve.http.sse import Event
from memserve.protocol import Delta, ToolCall, Usage

_DONE = "[DONE]"
_EVENTS = ("message", "error", "completion", "chunk")


class ChatReader(AnswerReader):
    """One attempt at a stream. `key` is where a choice keeps what is new ("delta"; Pangu V1: "message")."""

    def __init__(self, fail: Callable[[Words], MemserveError], *, key: str = "delta") -> None:
        super().__init__(fail)
        self._key = key
        self._usage: Usage | None = None
        self._unfold = Unfolder()
        self._calls: list[dict[str, Any]] = []
        self._halves: dict[str, str] = {}
        """Of characters, by the field whose next chunk has the other half."""
        self._refused = False

    def take(self, event: Event) -> list[Delta]:
        words = event.data.strip()
        if words == _DONE:
            self._done = True
            return []
        if not words or event.name not in _EVENTS:
            return self.other(event)
        chunk = body.parse(words)
        failed = answer.failure_in(chunk)
        if failed is None and event.name == "error":
            failed = answer.failure_in({"error": chunk})
        if failed is not None:
            raise self._fail(failed)
        return self._chunk(chunk)

    def other(self, event: Event) -> list[Delta]:
        """An event of another name: pings carry nothing; a moderation's block ends the answer."""
        if "moderation" in event.name and '"block' in event.data.lower():
            raise ContentRefused("the provider's moderation blocked the answer")
        return []

    def end(self) -> list[Delta]:
        told = enumerate(sorted(self._calls, key=lambda call: call["index"]))
        calls = (
            ToolCall(call["id"] or f"call_{place}", call["name"], call["arguments"]) for place, call in told
        )
        cut = answer.clean(self._halves.pop("content", ""))
        return self._last(self._usage, calls, self._unfold.finish() + cut)

    def whole(self, words: str, headers: Mapping[str, str]) -> list[Delta]:
        found = body.parse(words)
        failed = answer.failure_in(found)
        if failed is not None:
            raise self._fail(failed)
        full = answer.completion(found)
        return self._only(full)

    def _chunk(self, chunk: Any) -> list[Delta]:
        if not isinstance(chunk, dict):
            raise body.bad("an event of the stream is not an object")
        if isinstance(chunk.get("usage"), dict):
            self._usage = answer.usage(chunk["usage"])
        choices = chunk.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise body.bad("the choices of an event are not a list of objects")
        return [delta for choice in choices for delta in self._choice(choice)]

    def _choice(self, choice: dict[str, Any]) -> list[Delta]:
        if choice.get("index") not in (None, 0):
            raise body.bad("the stream carries a sample that was not asked for")
        said = choice.get("finish_reason")
        if said not in (None, ""):
            self._finish = "content_filter" if self._refused else answer.finish(said)
            self._finished = True
        message = choice.get(self._key)
        if message is None:
            message = choice.get("message") or {"content": choice.get("text")}
        if not isinstance(message, dict):
            raise body.bad(f"the {self._key} of an event is not an object")
        return self._message(message)

    def _message(self, message: dict[str, Any]) -> list[Delta]:
        self._collect(answer.called(message))
        if message.get("refusal"):
            self._refused = True
            self._finish = "content_filter"
        message = {**message, **self._joined(message)}
        new = self._unfold.feed(answer.text(message.get("content")) or "")
        reasoning = answer.reasoning(message) or ""
        return [Delta(new, reasoning=reasoning)] if new or reasoning else []

    def _joined(self, message: dict[str, Any]) -> dict[str, str]:
        """Texts whose characters were cut between two chunks, whole; the last one's half waits."""
        found = {}
        for name, value in message.items():
            if isinstance(value, str):
                words = self._halves.pop(name, "") + value
                self._halves[name] = last = words[-1:] if "\ud800" <= words[-1:] <= "\udbff" else ""
                found[name] = words.removesuffix(last)
        return found

    def _collect(self, calls: Any) -> None:
        """Calls come in fragments, by their numbers, which some servers leave out, or by their ids."""
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise body.bad("the tool calls of an event are not a list of objects")
        for position, call in enumerate(calls):
            index, own = call.get("index"), str(call.get("id") or "")
            index = index if isinstance(index, int) else position
            function = call["function"] if isinstance(call.get("function"), dict) else {}
            known = next((one for one in reversed(self._calls) if one["index"] == index), None)
            if known is None or (own and known["id"] not in ("", own)):
                known = {"index": index, "id": "", "name": "", "arguments": ""}
                self._calls.append(known)
            known["id"] = known["id"] or own
            name = str(function.get("name") or "")
            known["name"] += "" if name == known["name"] else name
            known["arguments"] += answer.arguments(function)


_TELLING = 4
"""Two chunks alone prove repetition only where the first has this many characters."""


class Unfolder:
    """Feed it chunks; it gives what is new in each.

    Undecided, it holds a chunk back that begins with all the text so far: the next chunk decides.
    """

    def __init__(self) -> None:
        self._text = ""
        self._held = ""
        self._mode: str | None = None

    def feed(self, piece: str) -> str:
        """The new text of a chunk, or "" while it is held back."""
        if not piece or self._mode == "plain":
            return piece
        if self._mode == "whole":
            return self._grown(piece)
        if not self._text:
            self._text = piece
            return piece
        return self._third(piece) if self._held else self._second(piece)

    def finish(self) -> str:
        """What was held back when the stream ended."""
        held, self._held = self._held, ""
        repeats = held.replace(self._text, "") == "" if held else False
        if held and not repeats and len(self._text) >= _TELLING:
            return held[len(self._text) :]
        return held

    def _second(self, piece: str) -> str:
        if len(piece) > len(self._text) and piece.startswith(self._text):
            self._held = piece
            return ""
        self._mode = "plain"
        return piece

    def _third(self, piece: str) -> str:
        held, self._held = self._held, ""
        if piece.startswith(held):
            self._mode = "whole"
            return self._grown(piece)
        self._mode = "plain"
        return held + piece

    def _grown(self, piece: str) -> str:
        if not piece.startswith(self._text):
            raise bad("the chunks of the stream contradict each other")
        new = piece[len(self._text) :]
        self._text = piece
        return new
