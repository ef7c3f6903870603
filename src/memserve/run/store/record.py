"""One line of the answers file: an answer as JSON that ends in the checksum of what stands before it."""

from __future__ import annotations

import json
import math
import re
import sqlite3
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import Enum
from hashlib import blake2b
from json.encoder import encode_basestring
from typing import Any
from zlib import crc32

from memserve.errors import StorageFull
from memserve.files import parsed
from memserve.protocol import Completion, Usage
from memserve.run.requests import Identity, Item
from memserve.run.tasks import Result

_HEAD = re.compile(rb'\{"id": ("(?:[^"\\]|\\.)*"|-?\d+), ')
_BEGIN = b'{"id": '
_TAIL = re.compile(rb', "key": "([0-9a-f]{32})", "check": "([0-9a-f]{8})"\}\n?$')
_LIKE_TAIL = re.compile(rb'"[^"]{32}", "[^"]{5}": "[^"]{8}"\}\n?$')
_TAIL_LENGTH = len(', "key": "", "check": ""}\n') + 32 + 8
_CHECK_LENGTH = len(', "check": ""}') + 8
_MARKS = frozenset({"index", "seconds", "cached", "usd", "at", "key"})
"""Names that lines of ours have beside an answer."""
_ANSWER = ("reasoning", "model", "by", "request_id")
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
    if isinstance(completion, Result):
        row = dict(completion.values)
    row.update({name: value for name in _ANSWER if (value := getattr(completion, name)) is not None})
    row.update({name: _plain(value) for name in _PARTS if (value := getattr(completion, name))})
    usage = _usage(completion.usage)
    if usage:
        row["usage"] = usage
    return dumps(row)


def line(item: Item, answer: bytes, seconds: float | None, usd: float | None,
         lost: Mapping[str, float] | None = None) -> bytes:  # fmt: skip
    """One line for the answers file. `seconds` is None for an answer out of the cache."""
    parts = [b'{"id": %s, "index": %d' % (name_of(item.id), item.index), answer[1:-1]]
    if item.meta is not None:
        parts.append(b'"meta": ' + dumps(item.meta))
    parts.append(b'"cached": true' if seconds is None else b'"seconds": %.4f' % seconds)
    if usd is not None:
        parts.append(b'"usd": %.8f' % usd)
    parts += [b'"%s": %.8f' % (name.encode(), value) for name, value in (lost or {}).items()]
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
    row = None if is_signed(raw) else read(raw)
    if row is None or not isinstance(row.get("id"), (str, int)):
        return None
    return Stamp(name_of(row["id"]), None)


def read(raw: bytes) -> dict[str, Any] | None:
    """The object of a line; None where it is none, or was ours and is not what was written any more."""
    try:
        row = parsed(raw)
    except ValueError:
        return None
    if not isinstance(row, dict) or not (is_signed(raw) or _is_foreign(row, raw)):
        return None
    return row


def _is_foreign(row: dict[str, Any], raw: bytes) -> bool:
    """Whether nothing says that a line was ours: a damaged one may have lost its names, hardly its form."""
    return "check" not in row and len(_MARKS & row.keys()) < 2 and not _LIKE_TAIL.search(raw)


def _usage(usage: Usage) -> dict[str, int]:
    return {name: value for name, value in vars(usage).items() if value is not None}


def _plain(value: tuple[Any, ...]) -> list[Any]:
    return [part if isinstance(part, int) else _bare(asdict(part)) for part in value]


def _bare(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value not in (None, ())}


CACHE_KIB = 12 * 1024
ANSWERED, FAILED, ASKED = 1, 2, 3


class Action(Enum):
    """What to do with a request that was just read."""

    ASK = "ask"
    ANSWERED = "answered"
    FAILED = "failed"
    """It failed before, in a way that asking again does not mend."""
    REPEATED = "repeated"
    """The same request under the same id stood earlier in this input."""
    CLASH = "clash"
    """Another request has this id."""


class KnownIds:
    """Ids by 64-bit hash. Two ids with one hash (3e-8 for a million) count as a clash, never dropped."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._base.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._base.execute("PRAGMA journal_mode = OFF")
        self._base.execute("PRAGMA synchronous = OFF")
        self._base.execute("CREATE TABLE seen (id INTEGER PRIMARY KEY, request INTEGER, state INTEGER)")
        self._base.execute("CREATE TABLE copies (request INTEGER PRIMARY KEY, n INTEGER)")
        self._base.execute("BEGIN")
        self._cursor = self._base.cursor()

    def load(self, state: int, stamps: Iterable[Stamp]) -> None:
        """Enter what earlier runs left; the latest line about an id counts."""
        rows = ((_hash(s.name), None if s.key is None else _short(s.key), state) for s in stamps)
        self._base.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", rows)

    def state(self, name: bytes) -> int | None:
        """The state of an id, given as JSON."""
        row = self._row(_hash(name))
        return None if row is None else int(row[1])

    def visit(self, item: Item) -> tuple[Item, Action]:
        """Judge a request, and enter it as asked. An item without an id of its own may get a numbered one."""
        try:
            return self._visit(item)
        except sqlite3.OperationalError as broken:
            words = f"no space for the table of ids in the folder for temporary files: {broken}"
            raise StorageFull(
                words, hint="free some space there, or set TMPDIR to another folder"
            ) from broken

    def _visit(self, item: Item) -> tuple[Item, Action]:
        if not item.named:
            item = self._numbered(item)
        key, request = _hash(name_of(item.id)), _short(item.digest)
        if self._cursor.execute(
            "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (key, request, ASKED)
        ).rowcount:
            return item, Action.ASK
        action = _judge(self._row(key), request)
        if action in (Action.ANSWERED, Action.FAILED):
            self._cursor.execute("UPDATE seen SET request = ?, state = ? WHERE id = ?", (request, ASKED, key))
        return item, action

    def close(self) -> None:
        """Drop the table."""
        self._base.close()

    def _row(self, key: int) -> Any:
        return self._cursor.execute("SELECT request, state FROM seen WHERE id = ?", (key,)).fetchone()

    def _numbered(self, item: Item) -> Item:
        """The second, third, ... copy of a bare prompt is another request, not a repetition."""
        key = _short(item.digest)
        row = self._base.execute("SELECT n FROM copies WHERE request = ?", (key,)).fetchone()
        n = 0 if row is None else int(row[0]) + 1
        self._base.execute("INSERT OR REPLACE INTO copies VALUES (?, ?)", (key, n))
        return item if n == 0 else replace(item, id=f"{item.id}-{n}")


def _judge(row: Any, request: int) -> Action:
    known, state = row
    if known is not None and known != request:
        return Action.CLASH
    return {ANSWERED: Action.ANSWERED, FAILED: Action.FAILED}.get(state, Action.REPEATED)


def _hash(name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True)


def _short(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big", signed=True)
