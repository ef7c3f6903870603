"""Answers kept across runs and outputs, under everything that decides them.

The key is what answers (backend, address, model, revision, ... : `Generator.identity`) and the request's
digest (the prompt and every chosen setting). Only normal finishes of repeatable requests are kept: never an
error, a refusal, a truncated answer, or a sample drawn without a seed.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from memserve.errors import InvalidInput, StorageFull
from memserve.protocol import DEFAULT_MAX_TOKENS, DEFAULT_TEMPERATURE, DEFAULT_TOP_P, Completion, Request
from memserve.run.requests.item import Item

WRITE_SECONDS = 0.5
NORMAL = frozenset({"stop", "tool_calls"})
_DEFAULTS = {"max_tokens": DEFAULT_MAX_TOKENS, "temperature": DEFAULT_TEMPERATURE, "top_p": DEFAULT_TOP_P}


def repeatable(request: Request) -> bool:
    """Whether asking twice is meant to give the same answer."""
    return not request.temperature or request.seed is not None


def normal(completion: Completion) -> bool:
    """Whether an answer came to its end by itself."""
    finished = completion.finish_reason in NORMAL and completion.error is None
    return finished and (completion.text is not None or bool(completion.tool_calls))


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
        self._pending: list[tuple[bytes, bytes]] = []
        self._written = time.monotonic()
        self._base = self._opened()

    def get(self, item: Item) -> bytes | None:
        """The body of the answer's line, or None."""
        with self._guard:
            row = self._base.execute("SELECT body FROM answers WHERE key = ?", (self._key(item),)).fetchone()
        return None if row is None else bytes(row[0])

    def put(self, item: Item, completion: Completion, body: bytes) -> None:
        """Keep an answer, if it is one to keep."""
        if not (repeatable(item.request) and normal(completion)):
            return
        with self._guard:
            self._pending.append((self._key(item), body))
            if time.monotonic() - self._written > WRITE_SECONDS:
                self._write()

    def close(self) -> None:
        """Write what is pending and close."""
        with self._guard:
            try:
                self._write()
            finally:
                self._base.close()

    def _key(self, item: Item) -> bytes:
        return blake2b(item.digest, digest_size=16, key=self._salt).digest()

    def _write(self) -> None:
        try:
            with self._base:
                self._base.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", self._pending)
        except sqlite3.OperationalError as broken:
            raise StorageFull(
                f"cannot write the answer cache {self._path}: {broken}",
                hint="free some space, or run without the cache",
            ) from broken
        self._pending.clear()
        self._written = time.monotonic()

    def _opened(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            base = sqlite3.connect(self._path, timeout=30, check_same_thread=False)
            base.execute("PRAGMA journal_mode = WAL")
            base.execute("PRAGMA synchronous = NORMAL")
            base.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, body BLOB) WITHOUT ROWID")
            base.commit()
        except (sqlite3.Error, OSError) as broken:
            raise InvalidInput(f"cannot open the answer cache {self._path}: {broken}") from broken
        return base
