"""The file of failed items, with reasons, beside the answers file."""

import errno
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from memserve.errors import MemserveError
from memserve.run.requests import Item
from memserve.run.store import files, record
from memserve.run.store.journal import full

_log = logging.getLogger("memserve.run")


_KEYS = frozenset({"id", "error", "message", "retryable", "at"})
_DAMAGED = re.compile(rb'\{"id": .*"error": .*, "check": "[0-9a-f]{8}"\}\n', re.DOTALL)


def is_ours(path: Path) -> bool:
    """Whether every line is a failure that a run wrote, or what a crash or a bad disk left of one."""
    seen = False
    with path.open("rb") as file:
        for raw in file:
            if _row(raw) is None and not _was_row(raw, seen):
                return False
            seen = True
    return True


def _was_row(raw: bytes, seen: bool) -> bool:
    """Whether a line was one of ours: damaged, but recognizable; or the last, which a crash tore."""
    if raw.endswith(b"\n"):
        return bool(_DAMAGED.match(raw))
    return raw.startswith(b'{"id": ') or (seen and not raw.strip(b"\0"))


def _row(raw: bytes) -> dict[str, Any] | None:
    """The row of a whole line; None for any other line."""
    if not raw.endswith(b"\n") or not record.is_signed(raw):
        return None
    row = json.loads(raw)
    return row if row.keys() >= _KEYS else None


class Failures:
    """One row for each item that has no answer and will get none by waiting."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        self._file: int | None = None

    def keep(self, still: Callable[[record.Stamp], bool]) -> None:
        """Rewrite the file with the rows that still hold; the others are about to be asked again."""
        files.refuse_foreign(self.path, is_ours)
        if not self.path.exists():
            return
        spare = self.path.with_name(self.path.name + ".new")
        try:
            kept = self._copy(spare, still)
        except OSError as broken:
            raise full(spare, broken) or broken from None
        if kept:
            spare.replace(self.path)
        else:
            self.path.unlink()
            spare.unlink()
        files.sync_folder(self.path)

    def _copy(self, spare: Path, still: Callable[[record.Stamp], bool]) -> int:
        kept = 0
        with os.fdopen(files.scratch(spare, is_ours), "wb") as file:
            for row, raw in self.rows():
                stamp = _stamp(row)
                if stamp and not row.get("retryable", True) and still(stamp):
                    file.write(raw)
                    kept += 1
            file.flush()
            os.fsync(file.fileno())
        return kept

    def rows(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Every whole row of the file, and its line."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for raw in file:
                row = _row(raw)
                if row is not None:
                    yield row, raw
                else:
                    _log.warning("%s: left out a torn row", self.path)

    def stamps(self) -> Iterator[record.Stamp]:
        """Whose rows stand in the file."""
        return (stamp for row, _ in self.rows() if (stamp := _stamp(row)))

    def add(self, item: Item, error: BaseException) -> None:
        """An item that failed."""
        self._append({"id": item.id, "index": item.index, "key": item.digest.hex(), **reason(error)})

    def malformed(self, index: int, line: int | None, error: BaseException, name: Any = None) -> None:
        """An entry that never became an item."""
        place = {"index": index} if line is None else {"index": index, "line": line}
        self._append({"id": name, **place, **reason(error)})

    def close(self) -> None:
        """Close the file, if anything failed at all."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, row: dict[str, Any]) -> None:
        line = record.signed(record.dumps(row)[:-1])
        with self._guard:
            if self._file is None:
                self._file = _opened(self.path)
            start = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) < len(line):
                    os.ftruncate(self._file, start)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as broken:
                raise full(self.path, broken) or broken from None


def _opened(path: Path) -> int:
    files.refuse_foreign(path, is_ours)
    if not path.exists():
        os.close(files.create(path))
        files.sync_folder(path)
    return os.open(path, os.O_WRONLY | os.O_APPEND | files.BINARY)


def reason(error: BaseException) -> dict[str, Any]:
    """An error as a row says it: its kind, its words, and whether asking again may help."""
    row: dict[str, Any] = {"error": type(error).__name__, "message": str(error)[:2000] or repr(error)[:2000]}
    row["retryable"] = error.retryable if isinstance(error, MemserveError) else True
    for name in ("status", "code", "retry_at"):
        value = getattr(error, name, None)
        if value is not None:
            row[name] = value
    return {**row, "at": round(time.time(), 3)}


def _stamp(row: dict[str, Any]) -> record.Stamp | None:
    key = row.get("key")
    if not isinstance(key, str) or not isinstance(row.get("id"), (str, int)):
        return None
    return record.Stamp(record.name_of(row["id"]), bytes.fromhex(key))
