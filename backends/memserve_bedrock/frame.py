"""Amazon's event-stream framing: lengths, checksums, typed headers, a payload."""

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from memserve.errors import ConnectionFailed
from memserve.http.body import bad

_PRELUDE = struct.Struct(">III")
_SUM = struct.Struct(">I")
_LEAST = _PRELUDE.size + _SUM.size
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type; bytes (6) and strings (7) say their own length."""
_STRING = 7


@dataclass(frozen=True)
class Frame:
    """One message: its headers that are strings, and its payload."""

    headers: Mapping[str, str]
    payload: bytes


class Frames:
    """Feed it bytes as they arrive; it yields the frames that they complete."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = b""

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that this chunk completes."""
        self._buffer += chunk
        while len(self._buffer) >= _PRELUDE.size:
            size = self._size()
            if len(self._buffer) < size:
                return
            whole, self._buffer = self._buffer[:size], self._buffer[size:]
            yield _frame(whole)

    def finish(self) -> None:
        """Prove that the stream did not end inside a frame."""
        if self._buffer:
            raise ConnectionFailed("the stream ended inside a frame")

    def _size(self) -> int:
        size, headers, checksum = _PRELUDE.unpack_from(self._buffer)
        if zlib.crc32(self._buffer[:8]) != checksum:
            raise bad("a frame of the stream is corrupt: its prelude's checksum is wrong")
        if not _LEAST + headers <= size:
            raise bad("a frame of the stream is shorter than its headers")
        if size > self._limit:
            raise bad(f"a frame of the stream exceeds {self._limit} bytes", retries=None)
        return int(size)


def _frame(whole: bytes) -> Frame:
    if zlib.crc32(whole[: -_SUM.size]) != _SUM.unpack(whole[-_SUM.size :])[0]:
        raise bad("a frame of the stream is corrupt: its checksum is wrong")
    length = _PRELUDE.unpack_from(whole)[1]
    start = _PRELUDE.size
    try:
        headers = dict(_headers(whole[start : start + length]))
    except (struct.error, IndexError, KeyError, UnicodeDecodeError):
        raise bad("a frame's headers cannot be read") from None
    return Frame(headers, whole[start + length : -_SUM.size])


def _headers(data: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        name, kind = data[at + 1 : end].decode(), data[end]
        at = end + 1
        if kind in _FIXED:
            at += _FIXED[kind]
            continue
        if kind not in (6, _STRING):
            raise KeyError(kind)
        size = struct.unpack_from(">H", data, at)[0]
        value = data[at + 2 : at + 2 + size]
        at += 2 + size
        if kind == _STRING:
            yield name, value.decode()
