"""The answers file, which is the journal too: appended to, checked line by line, locked while in use.

One file holds the truth, so there is nothing that could disagree with it after a crash: a line is either
whole, and its request is answered, or torn, and the request is asked again.
"""

import errno
import logging
import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from memserve.errors import InvalidInput, JournalBroken, OutputInUse, RunError, StorageFull
from memserve.files import lock
from memserve.run.store import files, record

SYNC_SECONDS = 0.5
RESERVE_BYTES = 1 << 20
_RESERVE_HEADER = b"memserve: space for the last answers of a run on a full disk\n"
_RESERVE_LEAST = 4096
"""With a line behind the header: what is in flight, or lost and in no line yet."""
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
        found = os.fstat(self._descriptor)
        self._size, self._regular = found.st_size, stat.S_ISREG(found.st_mode)
        self._guard = threading.Lock()
        self._dirty = False
        self.full: RunError | None = None
        """Set once the disk is full or failing, or the file is not where it was: nothing more is asked."""
        self._closing = threading.Event()
        self._reserve = files.reserve_beside(path)
        self._kept: int | None = None
        self.owed = _owed(self._reserve)
        """What a run that is killed leaves without a line."""
        self._flusher = threading.Thread(target=self._flush, name="memserve-journal", daemon=True)

    def recover(self) -> Iterator[tuple[record.Stamp, bytes]]:
        """Every answer that is there, and its line; a torn last line is cut off. To be exhausted once."""
        good = 0
        with self.path.open("rb") as file:
            for number, raw in enumerate(file if self._size else (), start=1):  # a device has no end
                stamp, last = record.stamp(raw), good + len(raw) == self._size
                if stamp is None and last and (whole := record.stamp(raw + b"\n")):
                    self.append(b"\n")  # an editor, or another program, left its end out
                    yield whole, raw
                    break
                if stamp is None:
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

    def owe(self, owed: dict[str, float]) -> None:
        """Put down what no line says yet, before it is asked for."""
        with self._guard:
            self.owed = owed
            if self._kept is not None:
                os.lseek(self._kept, len(_RESERVE_HEADER), os.SEEK_SET)
                os.write(self._kept, record.signed(record.dumps(owed)[:-1]) if owed else b"\n")

    def sync(self) -> RunError | None:
        """Sync now, rather than within half a second; why that did not do, if so."""
        self._sync()
        return self.full

    def finish(self) -> RunError | None:
        """Sync what was written; why the answers may not be where they should, if so."""
        self._closing.set()
        if self._flusher.is_alive():
            self._flusher.join()
        self._sync()
        return self.full

    def close(self) -> None:
        """Finish, and let the lock go."""
        self.finish()
        if self._regular and os.fstat(self._descriptor).st_nlink == 0:
            self._put_back()
        self._drop_reserve()
        os.close(self._descriptor)

    def _write(self, line: bytes) -> None:
        self._check_size()
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
        if self._kept is not None:
            os.ftruncate(self._kept, _RESERVE_LEAST)

    def _write_last(self, line: bytes) -> None:
        try:
            self._write(line)
        except OSError as broken:
            raise full(self.path, broken) or broken from None

    def _flush(self) -> None:
        while not self._closing.wait(SYNC_SECONDS):
            self._sync()

    def _sync(self) -> None:
        if not self._regular:
            return
        self._check_place()
        with self._guard:
            self._check_size()
        if not self._dirty:
            return
        self._dirty = False
        try:
            os.fsync(self._descriptor)
        except OSError as broken:  # the kernel may have dropped the pages: a second try would prove nothing
            self.full = self.full or full(self.path, broken) or RunError(
                f"cannot sync {self.path}: {broken.strerror}: its last answers may be lost",
                hint="look after the disk, then run again: what is missing is asked again",
            )  # fmt: skip

    def _check_size(self) -> None:
        """A file that shrank under the run lost answers; what is left of a line is cut off."""
        if not self._regular:
            return
        size = os.fstat(self._descriptor).st_size
        if size < self._size:
            lost, size = self._size - size, self._whole(size)
            os.ftruncate(self._descriptor, size)
            self.full = self.full or RunError(
                f"{self.path} was cut during the run: {lost} bytes of answers are gone",
                hint="run again: what is missing is asked again",
            )
        self._size = size

    def _whole(self, size: int) -> int:
        """Up to where the file holds whole lines."""
        while size:
            start = max(0, size - (1 << 16))
            end = os.pread(self._descriptor, size - start, start).rfind(b"\n") + 1
            if end:
                return start + end
            size = start
        return 0

    def _check_place(self) -> None:
        """Whether the path still leads to the file that is written."""
        mine = os.fstat(self._descriptor)
        try:
            found = self.path.stat()
        except OSError:
            found = None
        if found is not None and (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino):
            return
        if mine.st_nlink == 0:
            words, hint = "deleted", "its answers are put back; run again"
        else:
            words, hint = (
                "moved or replaced",
                f"its answers are in {self._name()}; move it back and run again",
            )
        self.full = self.full or RunError(f"{self.path} was {words} during the run", hint=hint)

    def _name(self) -> str:
        """Where the file lies now, as far as the system tells."""
        try:
            return str(Path(f"/proc/self/fd/{self._descriptor}").readlink())
        except OSError:
            return "the file that was moved"

    def _put_back(self) -> None:
        """The answers of a file that was deleted under the run are still there until it is closed."""
        path, number = self.path, 0
        files.make_folder(path.parent)  # it may have gone with the file
        while os.path.lexists(path):
            path = self.path.with_name(f"{self.path.name}.rescued{f'-{number}' if number else ''}")
            number += 1
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self._descriptor), "rb") as source, os.fdopen(files.create(path), "wb") as file:
            shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        files.sync_folder(path)
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
            if self.owed:
                self._kept = os.open(self._reserve, os.O_RDWR | files.BINARY)
            else:
                self._kept = files.scratch(self._reserve, is_reserve)
                os.write(self._kept, _RESERVE_HEADER)
            os.posix_fallocate(self._kept, 0, max(size, _RESERVE_LEAST))
        except (OSError, AttributeError):  # full already, or a system that has no such call
            _log.debug("no space is kept beside %s", self.path)

    def _drop_reserve(self) -> None:
        with self._guard:
            if self._kept is not None:
                os.close(self._kept)
                self._kept = None
        ours = self._reserve.is_file() and not self._reserve.is_symlink() and is_reserve(self._reserve)
        if ours and not self.owed:
            self._reserve.unlink(missing_ok=True)


def _owed(reserve: Path) -> dict[str, float]:
    """What a run that was killed left in its reserve."""
    with suppress(OSError), reserve.open("rb") as file:
        header, line = file.readline(_RESERVE_LEAST), file.readline(_RESERVE_LEAST)
        if header == _RESERVE_HEADER and record.is_signed(line):
            return record.read(line) or {}
    return {}


def is_reserve(path: Path) -> bool:
    """Whether a run made this file: it begins with our line, or a full disk left it empty."""
    with path.open("rb") as file:
        return _RESERVE_HEADER.startswith(file.read(len(_RESERVE_HEADER)))


def _is_answers(path: Path) -> bool:
    """Whether a file is empty or begins with an answer, as what a killed repair left does."""
    with path.open("rb") as file:
        return record.stamp(first := file.readline()) is not None or record.is_torn(first)


def _opened(path: Path) -> int:
    try:
        files.make_folder(path.parent)
        fresh = not path.exists()
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | files.BINARY
        descriptor = os.open(path, flags, files.PRIVATE)
    except OSError as broken:
        raise full(path, broken) or InvalidInput(
            f"cannot write answers to {path}: {broken.strerror}"
        ) from broken
    try:
        held = lock(descriptor)
    except OSError as broken:
        os.close(descriptor)
        raise InvalidInput(f"cannot lock {path}: {broken.strerror}", hint="name another output") from broken
    if not held:
        os.close(descriptor)
        raise OutputInUse(f"another run is writing {path}", hint="wait for it, or name another output")
    if fresh:
        files.sync_folder(path)
    return descriptor


def _set_aside(path: Path) -> None:
    """Answers are money: a fresh start keeps the old file under another name."""
    number = 1
    while (kept := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    path.rename(kept)
    _log.warning("kept the earlier answers as %s", kept)


def verify(path: Path) -> tuple[int, list[int]]:
    """Whole lines of an answers file, and the numbers of those that are not what was written."""
    try:
        with path.open("rb") as file:
            found = [(record.stamp(raw) is not None, b'"check": "' in raw) for raw in file]
    except OSError as broken:
        raise InvalidInput(f"cannot read {path}: {broken.strerror}") from broken
    if found and not any(ours for _, ours in found):
        raise InvalidInput(f"{path} is no run's output: no line has a checksum")
    stamps = [whole for whole, _ in found]
    return sum(stamps), [number for number, whole in enumerate(stamps, 1) if not whole]


def repair(path: Path) -> Path | None:
    """Set the lines that are not what was written aside, to be asked again; the file that has them."""
    path = Path(os.path.realpath(path))  # what takes its place must not take a link's
    damaged = set(verify(path)[1])
    if not damaged:
        return None
    descriptor = _opened(path)
    aside = path.with_name(f"{path.stem}.damaged-{time.time_ns()}{path.suffix}")
    kept = path.with_name(f"{path.name}.repaired")
    try:
        with path.open("rb") as source, os.fdopen(files.create(aside), "wb") as bad, \
                os.fdopen(files.scratch(kept, _is_answers), "wb") as good:  # fmt: skip
            for number, raw in enumerate(source, 1):
                # what an editor puts around a line is no damage
                whole = raw.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") + b"\n"
                sound = number not in damaged or record.stamp(whole) is not None
                (good if sound else bad).write(whole if sound else raw)
            for file in (bad, good):
                file.flush()
                os.fsync(file.fileno())
        kept.replace(path)
        files.sync_folder(path)
    finally:
        os.close(descriptor)
    return aside
