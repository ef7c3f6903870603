"""What is known of each id, for any number of ids: a SQLite table on disk with a small page cache.

It is thrown away with the process and filled anew from the answers file, so it can never contradict it.
A Python set of a million ids would take 100 MB.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from enum import Enum
from hashlib import blake2b
from typing import Any

from memserve.errors import StorageFull
from memserve.run.requests.item import Item
from memserve.run.store import record

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

    def load(self, state: int, stamps: Iterable[record.Stamp]) -> None:
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
        key, request = _hash(record.name_of(item.id)), _short(item.digest)
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
