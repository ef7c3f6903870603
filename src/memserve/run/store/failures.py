"""The file of failed items, with reasons, beside the answers file."""

import errno
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from memserve.errors import MemserveError
from memserve.run.requests.item import Item
from memserve.run.store import record
from memserve.run.store.journal import BINARY, full

_log = logging.getLogger("memserve.run")


def beside(output: Path) -> Path:
    """answers.jsonl -> answers.failed.jsonl"""
    return output.with_name(f"{output.stem}.failed{output.suffix}")


class Failures:
    """One row for each item that has no answer and will get none by waiting."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        self._file: int | None = None

    def keep(self, still: Callable[[record.Stamp], bool]) -> None:
        """Rewrite the file with the rows that still hold; the others are about to be asked again."""
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

    def _copy(self, spare: Path, still: Callable[[record.Stamp], bool]) -> int:
        kept = 0
        with spare.open("wb") as file:
            for row, raw in self.rows():
                stamp = _stamp(row)
                if stamp and not row.get("retryable", True) and still(stamp):
                    file.write(raw)
                    kept += 1
        return kept

    def rows(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Every whole row of the file, and its line."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for raw in file:
                try:
                    row = json.loads(raw) if raw.endswith(b"\n") else None
                except ValueError:
                    row = None
                if isinstance(row, dict):
                    yield row, raw
                else:
                    _log.warning("%s: left out a torn row", self.path)

    def stamps(self) -> Iterator[record.Stamp]:
        """Whose rows stand in the file."""
        return (stamp for row, _ in self.rows() if (stamp := _stamp(row)))

    def add(self, item: Item, error: BaseException) -> None:
        """An item that failed."""
        self._append({"id": item.id, "index": item.index, **reason(error), "key": item.digest.hex()})

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
        line = record.dumps(row) + b"\n"
        with self._guard:
            if self._file is None:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | BINARY, 0o666)
            start = os.fstat(self._file).st_size
            try:
                if os.write(self._file, line) < len(line):
                    os.ftruncate(self._file, start)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as broken:
                raise full(self.path, broken) or broken from None


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
