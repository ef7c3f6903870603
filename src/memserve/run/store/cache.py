"""Answers kept across runs and outputs, under everything that decides them.

The key is what answers (backend, address, model, revision, task, ...: `identity`) and the request's digest
(the prompt and every chosen setting). Only normal finishes of repeatable requests are kept: never an error,
a refusal, a truncated answer, or a sample drawn without a seed.
"""

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from memserve.errors import InvalidInput, StorageFull
from memserve.files import parsed
from memserve.protocol import DEFAULT_MAX_TOKENS, DEFAULT_TEMPERATURE, DEFAULT_TOP_P, Completion, Request
from memserve.run.requests import Item
from memserve.run.store import files
from memserve.run.tasks import Result

WRITE_SECONDS = 0.5
_TABLE = "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, body BLOB, mark BLOB) WITHOUT ROWID"
_INSERT = "INSERT OR REPLACE INTO answers (key, body, mark) VALUES (?, ?, ?)"
_log = logging.getLogger("memserve.run")
_RESULTS = {"embedding", "scores", "logprob"}
NORMAL = frozenset({"stop", "tool_calls"})
_DEFAULTS = {"max_tokens": DEFAULT_MAX_TOKENS, "temperature": DEFAULT_TEMPERATURE, "top_p": DEFAULT_TOP_P}


def repeatable(request: Request) -> bool:
    """Whether asking twice is meant to give the same answer."""
    return not request.temperature or request.seed is not None


def normal(completion: Completion) -> bool:
    """Whether an answer came to its end by itself."""
    finished = completion.finish_reason in NORMAL and completion.error is None
    told = completion.text is not None or isinstance(completion, Result)
    return finished and (told or bool(completion.tool_calls))


class Cache:
    """A SQLite file in WAL mode that several runs may share. Writes come in batches; the last may be lost."""

    def __init__(self, path: Path, identity: Mapping[str, str]) -> None:
        if not identity.get("model"):
            raise InvalidInput(
                "an answer cache must know which model answers, and this generator does not say",
                hint="name the model when you open the generator",
            )
        self._path = path
        salt = json.dumps({**_DEFAULTS, **identity}, sort_keys=True).encode()
        self._salt = blake2b(salt, digest_size=32).digest()
        self._guard = threading.Lock()
        self._pending: list[tuple[bytes, bytes, bytes | None]] = []
        self._told = False
        self._written = time.monotonic()
        self._base = self._opened()

    def get(self, item: Item) -> bytes | None:
        """The body of the answer's line, or None."""
        key = self._key(item)
        try:
            with self._guard:
                row = self._base.execute("SELECT body, mark FROM answers WHERE key = ?", (key,)).fetchone()
        except (sqlite3.Error, UnicodeError) as broken:
            self._tell(f"cannot be read ({broken})")
            return None
        if row is None or (row[1] == _mark(key, row[0]) and _is_answer(row[0])):
            return row and bytes(row[0])
        self._tell("holds answers that are not what was written there")
        return None

    def put(self, item: Item, completion: Completion, body: bytes) -> None:
        """Keep an answer, if it is one to keep."""
        if not (repeatable(item.request) and normal(completion)):
            return
        with self._guard:
            key = self._key(item)
            self._pending.append((key, body, _mark(key, body)))
            if time.monotonic() - self._written > WRITE_SECONDS:
                self._write()

    def close(self) -> None:
        """Write what is pending and close."""
        with self._guard:
            try:
                self._write()
            except StorageFull as broken:  # the answers themselves are safe
                _log.warning("%s", broken)
            finally:
                self._base.close()

    def _tell(self, what: str) -> None:
        if not self._told:
            _log.warning("the answer cache %s %s: they count as not cached", self._path, what)
        self._told = True

    def _key(self, item: Item) -> bytes:
        return blake2b(item.digest, digest_size=16, key=self._salt).digest()

    def _write(self) -> None:
        try:
            with self._base:
                self._base.executemany(_INSERT, self._pending)
        except (sqlite3.Error, UnicodeError) as broken:
            raise StorageFull(
                f"cannot write the answer cache {self._path}: {broken}",
                hint="free some space, or run without the cache",
            ) from broken
        self._pending.clear()
        self._written = time.monotonic()

    def _opened(self) -> sqlite3.Connection:
        with ExitStack() as stack:
            base = self._connected(stack)
            stack.pop_all()
        return base

    def _connected(self, stack: ExitStack) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(files.create(self._path))
            base = sqlite3.connect(self._path, timeout=30, check_same_thread=False)
            stack.callback(base.close)
            self._refuse_foreign(base)
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = NORMAL")
            base.execute(_TABLE)
            base.commit()
        except (sqlite3.Error, OSError, UnicodeError) as broken:  # its own words may be damaged, too
            words = getattr(broken, "strerror", None) or broken
            raise InvalidInput(f"cannot open the answer cache {self._path}: {words}") from broken
        return base

    def _refuse_foreign(self, base: sqlite3.Connection) -> None:
        """Somebody else's database gets no table of ours, and no column."""
        found = {row[0] for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = {row[1] for row in base.execute("PRAGMA table_info(answers)")}
        if found and not (found == {"answers"} and columns >= {"key", "body", "mark"}):
            raise InvalidInput(f"{self._path} is a database, and no answer cache", hint="name another file")


def _mark(key: bytes, body: Any) -> bytes | None:
    """The checksum of a row; none for a body that is no bytes."""
    return blake2b(key + body, digest_size=16).digest() if isinstance(body, bytes) else None


def _is_answer(body: bytes) -> bool:
    """Whether a body is one JSON object that a line of the answers file can hold."""
    try:
        row = parsed(body)
    except ValueError:
        return False
    told = isinstance(row, dict) and (row.keys() >= {"text", "finish_reason"} or row.keys() & _RESULTS)
    return bool(told) and b"\n" not in body
