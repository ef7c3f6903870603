"""Where every outcome goes: the journal, the cache, the file of failures, and the counts."""

import errno
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memserve.errors import MemserveError
from memserve.protocol import Completion, Usage
from memserve.run.limits.budget import Spending
from memserve.run.requests import Item
from memserve.run.store import files, record
from memserve.run.store.cache import Cache
from memserve.run.store.journal import Journal, full
from memserve.run.summary import Summary

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
    row = record.read(raw) if raw.endswith(b"\n") and record.is_signed(raw) else None
    return row if row and row.keys() >= _KEYS else None


class Failures:
    """One row for each item that has no answer and will get none by waiting."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._guard = threading.Lock()
        self._file: int | None = None

    def keep(self, still: Callable[[record.Stamp], bool],
             tell: Callable[..., None] = lambda row, *, kept: None) -> None:  # fmt: skip
        """Rewrite the file with the rows that still hold; `tell` hears of each, and whether it is kept."""
        files.refuse_foreign(self.path, is_ours)
        if not self.path.exists():
            return
        spare = self.path.with_name(self.path.name + ".new")
        try:
            kept = self._copy(spare, still, tell)
        except OSError as broken:
            raise full(spare, broken) or broken from None
        if kept:
            spare.replace(self.path)
        else:
            self.path.unlink()
            spare.unlink()
        files.sync_folder(self.path)

    def _copy(self, spare: Path, still: Callable[[record.Stamp], bool], tell: Callable[..., None]) -> int:
        kept = 0
        with os.fdopen(files.scratch(spare, is_ours), "wb") as file:
            for row, raw in self.rows():
                stamp = _stamp(row)
                stays = stamp is not None and not row.get("retryable", True) and still(stamp)
                tell(row, kept=stays)
                if stays:
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

    def add(self, item: Item, error: BaseException, lost: Mapping[str, float] | None = None) -> None:
        """An item that failed."""
        self._append(
            {"id": item.id, "index": item.index, "key": item.digest.hex(), **(lost or {}), **reason(error)}
        )

    def lost(self, lost: Mapping[str, float]) -> None:
        """What no later line tells: the budget of the next run has it."""
        self._append({"id": None, **lost, **reason(MemserveError("asked without an answer, perhaps billed"))})

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


@dataclass
class Counts:
    """The running totals behind a summary and a progress line."""

    total: int = 0
    done: int = 0
    cached: int = 0
    resumed: int = 0
    repeated: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    usd: float | None = None

    @property
    def settled(self) -> int:
        """Requests about which nothing remains to be done."""
        return self.done + self.cached + self.resumed + self.repeated + self.failed

    def add(self, usage: Usage, usd: float | None) -> None:
        """Count one answer."""
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0
        self.cached_tokens += usage.cached_tokens or 0
        if usd is not None:
            self.usd = (self.usd or 0.0) + usd


class Results:
    """Takes outcomes from the reading thread and from the asking one."""

    def __init__(self, journal: Journal, failures: Failures, cache: Cache | None, spending: Spending) -> None:
        self.counts = Counts()
        self.tell: Callable[..., None] = lambda _what, *_values: None
        """Hears of each outcome after it is written down (memserve.run.observers)."""
        self._journal = journal
        self._failures = failures
        self._cache = cache
        self._spending = spending
        self._model: str | None = None
        self._began = time.monotonic()

    @property
    def trouble(self) -> MemserveError | None:
        """Why nothing more should be asked, as a full disk."""
        return self._journal.full

    def answered(self, item: Item, completion: Completion, seconds: float) -> None:
        """Write an answer down: first of all to the journal."""
        usd = self._spending.cost(completion.usage, completion.by)
        body = record.body(completion)
        self._journal.append(record.line(item, body, seconds, usd, self._spending.take()))
        self.counts.done += 1
        self.counts.add(completion.usage, usd)
        if completion.by is None:  # a route's answers say themselves whose they are
            self._watch_model(completion.model)
        if self._cache:
            self._keep(self._cache, item, completion, body)
        self.tell("answered", item, completion, seconds)

    def sync(self) -> None:
        """Everything that was answered is on the disk; raises where it may not be."""
        trouble = self._journal.sync()
        if trouble is not None:
            raise trouble

    def replayed(self, item: Item) -> bool:
        """Answer out of the cache, if it has the answer."""
        body = self._cache.get(item) if self._cache else None
        if body is None:
            return False
        self._journal.append(record.line(item, body, None, None))
        self.counts.cached += 1
        return True

    def failed(self, item: Item, error: BaseException) -> None:
        """Write a failure down."""
        self._failures.add(item, error, self._spending.take())
        self.counts.failed += 1
        self.tell("failed", error)

    def malformed(self, index: int, line: int | None, error: BaseException, name: Any = None) -> None:
        """Write down an entry that is no request, under the id that it may have."""
        self._failures.malformed(index, line, error, name)
        self.counts.failed += 1
        self.tell("failed", error)

    def finish(self) -> None:
        """Write down what was lost and stands in no line."""
        if lost := self._spending.take():
            self._failures.lost(lost)
        self._spending.note(ended=True)

    def answered_before(self, item: Item) -> None:
        """An earlier run wrote the answer down."""
        self.counts.resumed += 1
        self._spending.answered_before(item)

    def summary(self, stopped: str | None, total: int | None) -> Summary:
        """The counts so far; of a run that was stopped, what it did not come to read is pending too."""
        counts = self.counts
        if stopped:
            counts.total = max(counts.total, total or 0)
        return Summary(
            output=str(self._journal.path), failed_output=str(self._failures.path),
            pending=max(0, counts.total - counts.settled), seconds=time.monotonic() - self._began,
            stopped=stopped, **vars(counts),
        )  # fmt: skip

    def _keep(self, cache: Cache, item: Item, completion: Completion, body: bytes) -> None:
        try:
            cache.put(item, completion, body)
        except MemserveError as broken:  # the answer itself is safe
            _log.warning("%s; going on without the cache", broken)
            self._cache = None

    def _watch_model(self, model: str | None) -> None:
        if self._model is None:
            self._model = model
        elif model is not None and model != self._model:
            _log.warning("answers now come from model %r, before from %r", model, self._model)
            self._model = model
