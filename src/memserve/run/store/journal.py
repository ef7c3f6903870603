"""The answers file, which is the journal too: appended to, checked line by line, locked while in use.

One file holds the truth, so there is nothing that could disagree with it after a crash: a line is either
whole, and its request is answered, or torn, and the request is asked again.
"""

import errno
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from memserve.errors import InvalidInput, JournalBroken, OutputInUse, RunError, StorageFull
from memserve.run.store import lock, record

SYNC_SECONDS = 0.5
RESERVE_BYTES = 1 << 20
BINARY = getattr(os, "O_BINARY", 0)
"""Windows would write two bytes for a line end."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_log = logging.getLogger("memserve.run")


def full(path: Path, broken: OSError) -> StorageFull | None:
    """The error to raise if the system says that there is no space; None if it says something else."""
    if broken.errno not in FULL:
        return None
    return StorageFull(f"no space left to write {path}", hint="free some space and run again: it resumes")


class Journal:
    """An open answers file. Appends come from any thread; at most half a second is ever unsynced."""

    def __init__(self, path: Path, *, afresh: bool = False) -> None:
        self.path = path
        self._descriptor = _opened(path)
        if afresh and os.fstat(self._descriptor).st_size:
            _set_aside(path)
            os.close(self._descriptor)
            self._descriptor = _opened(path)
        self._size = os.fstat(self._descriptor).st_size
        self._guard = threading.Lock()
        self._dirty = False
        self.full: RunError | None = None
        """Set once the disk was found full, or the file deleted: nothing more should be asked."""
        self._closing = threading.Event()
        self._reserve = path.with_name(path.name + ".reserve")
        self._flusher = threading.Thread(target=self._flush, name="memserve-journal", daemon=True)

    def recover(self) -> Iterator[tuple[record.Stamp, bytes]]:
        """Every answer that is there, and its line; a torn last line is cut off. To be exhausted once."""
        good = 0
        with self.path.open("rb") as file:
            for number, raw in enumerate(file if self._size else (), start=1):  # a device has no end
                stamp = record.stamp(raw)
                if stamp is None:
                    last = good + len(raw) == self._size
                    ours = good > 0 or record.is_torn(raw)
                    self._drop(number, good, len(raw), torn=last and ours)
                    break
                good += len(raw)
                yield stamp, raw
        self._set_reserve()
        self._flusher.start()

    def append(self, line: bytes) -> None:
        """Write one or more whole lines. When the disk is full, the space that was kept for answers
        already on their way is used, and `full` tells; raises StorageFull when that is gone too."""
        with self._guard:
            try:
                self._write(line)
            except OSError as broken:
                self._free_reserve(broken)
                self._write_last(line)

    def close(self) -> None:
        """Sync what was written and let the lock go."""
        self._closing.set()
        if self._flusher.is_alive():
            self._flusher.join()
        self._sync()
        if self._is_deleted():
            self._put_back()
        self._reserve.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _write(self, line: bytes) -> None:
        done = 0
        try:
            while done < len(line):
                done += os.write(self._descriptor, line[done:])
        except OSError:
            if done:
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += done
        self._dirty = True

    def _free_reserve(self, broken: OSError) -> None:
        known = full(self.path, broken)
        if known is None:
            raise broken
        self.full = known
        self._reserve.unlink(missing_ok=True)

    def _write_last(self, line: bytes) -> None:
        try:
            self._write(line)
        except OSError as broken:
            raise full(self.path, broken) or broken from None

    def _flush(self) -> None:
        while not self._closing.wait(SYNC_SECONDS):
            self._sync()
            if self._is_deleted():
                self.full = self.full or RunError(
                    f"{self.path} was deleted during the run", hint="its answers are put back; run again"
                )

    def _sync(self) -> None:
        if not self._dirty:
            return
        self._dirty = False
        try:
            os.fsync(self._descriptor)
        except OSError as broken:
            self.full = self.full or full(self.path, broken)
            _log.warning("cannot sync %s: %s", self.path, broken.strerror)

    def _is_deleted(self) -> bool:
        return os.fstat(self._descriptor).st_nlink == 0

    def _put_back(self) -> None:
        """The answers of a file that was deleted under the run are still there until it is closed."""
        path = self.path.with_name(self.path.name + ".rescued") if self.path.exists() else self.path
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self._descriptor), "rb") as source, path.open("wb") as file:
            shutil.copyfileobj(source, file)
        _log.warning("%s was deleted during the run; its answers are in %s", self.path, path)

    def _drop(self, number: int, start: int, length: int, *, torn: bool) -> None:
        if not torn:
            raise JournalBroken(
                f"line {number} of {self.path} is not what was written there",
                hint="restore it, or remove that line: its request is then asked again"
                if start
                else "restore it, remove that line, or name another output",
            )
        _log.warning("%s: dropped a torn last record of %d bytes", self.path, length)
        os.ftruncate(self._descriptor, start)
        self._size = start

    def _set_reserve(self) -> None:
        """Keep some blocks, so that answers on their way when the disk fills up can still be written."""
        try:
            disk = os.statvfs(self.path)
            size = min(RESERVE_BYTES, disk.f_bavail * disk.f_frsize // 16)
            with self._reserve.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except (OSError, AttributeError):  # full already, or a system that has no such call
            self._reserve.unlink(missing_ok=True)


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | BINARY, 0o666)
    except OSError as broken:
        raise full(path, broken) or InvalidInput(
            f"cannot write answers to {path}: {broken.strerror}"
        ) from broken
    try:
        held = lock.take(descriptor)
    except OSError as broken:
        os.close(descriptor)
        raise InvalidInput(f"cannot lock {path}: {broken.strerror}", hint="name another output") from broken
    if not held:
        os.close(descriptor)
        raise OutputInUse(f"another run is writing {path}", hint="wait for it, or name another output")
    return descriptor


def _set_aside(path: Path) -> None:
    """Answers are money: a fresh start keeps the old file under another name."""
    number = 1
    while (kept := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    path.rename(kept)
    _log.warning("kept the earlier answers as %s", kept)
