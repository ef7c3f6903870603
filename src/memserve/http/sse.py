"""Server-sent events: read in pieces of any size, to the letter of the standard."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from memserve.errors import BadAnswer
from memserve.http.client import Pieces

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Event:
    """One event: its name ("message" where none was sent) and its data."""

    name: str
    data: str


class Parser:
    """Feed it bytes as they arrive; it yields the events that they complete.

    Lines end in CR, LF or CRLF and nowhere else (U+2028 and U+0085 are text). Comments yield nothing.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = b""
        self._searched = 0
        self._started = False
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that this chunk completes."""
        self._buffer += chunk
        if not self._started and not self._start():
            return
        for line in self._lines():
            event = self._take(line)
            if event is not None:
                yield event
        if len(self._buffer) + self._size > self._limit:
            raise _too_large(self._limit)

    def finish(self) -> Iterator[Event]:
        """The event that the end of the stream completes, though the format would drop it."""
        rest, self._buffer = self._buffer.removesuffix(b"\r"), b""
        for line in (rest, b""):
            event = self._take(line) if line or self._data else None
            if event is not None:
                yield event

    def _start(self) -> bool:
        if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
            return False
        self._buffer = self._buffer.removeprefix(_BOM)
        self._started = True
        return True

    def _lines(self) -> Iterator[bytes]:
        start = 0
        for found in _LINE_END.finditer(self._buffer, self._searched):
            if found.group() == b"\r" and found.end() == len(self._buffer):
                break
            yield self._buffer[start : found.start()]
            start = found.end()
        self._buffer = self._buffer[start:]
        self._searched = max(0, len(self._buffer) - 1)

    def _take(self, line: bytes) -> Event | None:
        if not line:
            return self._complete()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value)
            if self._size > self._limit:
                raise _too_large(self._limit)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _complete(self) -> Event | None:
        name, data = self._name or "message", self._data
        self._name, self._data, self._size = "", [], 0
        if not data:
            return None
        try:
            return Event(name, b"\n".join(data).decode())
        except UnicodeDecodeError as broken:
            error = BadAnswer(f"an event of the stream is not UTF-8: {broken.reason}")
            error.retries = 2
            raise error from None


async def events(pieces: Pieces, limit: int) -> AsyncIterator[Event]:
    """The events of a streamed body."""
    parser = Parser(limit)
    while (chunk := await pieces.next()) is not None:
        for event in parser.feed(chunk):
            yield event
    for event in parser.finish():
        yield event


def _too_large(limit: int) -> BadAnswer:
    error = BadAnswer(f"an event of the stream exceeds {limit} bytes")
    error.retryable = False
    return error
