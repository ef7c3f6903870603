"""One line of the answers file: an answer as JSON that ends in the checksum of what stands before it."""

import json
import math
import re
import time
from dataclasses import asdict, dataclass
from json.encoder import encode_basestring
from typing import Any
from zlib import crc32

from memserve.protocol import Completion, Usage
from memserve.run.requests.item import Identity, Item

_HEAD = re.compile(rb'\{"id": ("(?:[^"\\]|\\.)*"|-?\d+), ')
_BEGIN = b'{"id": '
_TAIL = re.compile(rb', "key": "([0-9a-f]{32})", "check": "([0-9a-f]{8})"\}\n?$')
_TAIL_LENGTH = len(', "key": "", "check": ""}\n') + 32 + 8
_CHECK_LENGTH = len(', "check": ""}') + 8
_ANSWER = ("reasoning", "model", "request_id")
_PARTS = ("token_ids", "logprobs", "tool_calls", "samples")
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_BREAKS = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"})
"""Line ends to some readers, though not to JSON."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What resuming needs of a line: whose answer it is, and to which request."""

    name: bytes
    """The id as JSON."""
    key: bytes | None
    """The request's digest; None on a line that somebody else wrote."""


def dumps(value: Any) -> bytes:
    """JSON in UTF-8 on one line; lone surrogates, which UTF-8 cannot hold, are escaped."""
    try:
        text = _encode(value)
    except ValueError:
        text = _encode(_finite(value))
    if not text.isascii():
        text = text.translate(_BREAKS)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(json.loads(text)).encode()


def _finite(value: Any) -> Any:
    """The same without NaN and infinities, which JSON has not: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, (list, tuple)) else value


def name_of(identity: Identity) -> bytes:
    """An id as it stands in a line."""
    if isinstance(identity, int):
        return b"%d" % identity
    quoted = encode_basestring(identity)
    return quoted.encode() if quoted.isascii() else dumps(identity)


def body(completion: Completion) -> bytes:
    """What is known of an answer, whoever asked: the part of a line that the cache keeps."""
    row: dict[str, Any] = {"text": completion.text, "finish_reason": completion.finish_reason}
    row.update({name: value for name in _ANSWER if (value := getattr(completion, name)) is not None})
    row.update({name: _plain(value) for name in _PARTS if (value := getattr(completion, name))})
    usage = _usage(completion.usage)
    if usage:
        row["usage"] = usage
    return dumps(row)


def line(item: Item, answer: bytes, seconds: float | None, usd: float | None) -> bytes:
    """One line for the answers file. `seconds` is None for an answer out of the cache."""
    parts = [b'{"id": %s, "index": %d' % (name_of(item.id), item.index), answer[1:-1]]
    if item.meta is not None:
        parts.append(b'"meta": ' + dumps(item.meta))
    parts.append(b'"cached": true' if seconds is None else b'"seconds": %.4f' % seconds)
    if usd is not None:
        parts.append(b'"usd": %.8f' % usd)
    parts.append(b'"at": %.3f, "key": "%s"' % (time.time(), item.digest.hex().encode()))
    return signed(b", ".join(parts))


def signed(begun: bytes) -> bytes:
    """A line of an object that was begun, closed with the checksum of what stands before."""
    return b'%s, "check": "%08x"}\n' % (begun, crc32(begun))


def is_signed(raw: bytes) -> bool:
    """Whether a line is whole and as it was written."""
    end = len(raw) - 1 - _CHECK_LENGTH
    return end > 0 and raw[end:] == b', "check": "%08x"}\n' % crc32(raw[:end])


def stamp(raw: bytes) -> Stamp | None:
    """The stamp of a line, or None if the line is torn or was changed."""
    if not raw.endswith(b"\n"):
        return None
    tail = _TAIL.search(raw, max(0, len(raw) - _TAIL_LENGTH))
    head = _HEAD.match(raw)
    if not tail or not head:
        return _foreign(raw)
    if not is_signed(raw):
        return None
    return Stamp(head[1], bytes.fromhex(tail[1].decode()))


def is_torn(raw: bytes) -> bool:
    """Whether this is what a crash leaves of one of our lines: its beginning, or blocks never written."""
    written = raw.lstrip(b"\0").strip()
    return written.startswith(_BEGIN) or _BEGIN.startswith(written)


def _foreign(raw: bytes) -> Stamp | None:
    """A line that memserve did not write counts as an answer if it is an object with an id."""
    try:
        row = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or "check" in row or not isinstance(row.get("id"), (str, int)):
        return None
    return Stamp(name_of(row["id"]), None)


def _usage(usage: Usage) -> dict[str, int]:
    return {name: value for name, value in vars(usage).items() if value is not None}


def _plain(value: tuple[Any, ...]) -> list[Any]:
    return [part if isinstance(part, int) else _bare(asdict(part)) for part in value]


def _bare(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value not in (None, ())}
