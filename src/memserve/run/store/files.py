"""The files of a run: different ones, readable by their owner, touched only if ours; an output in a store."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeGuard

from memserve.errors import InvalidInput, RunError
from memserve.missing import missing, need

BINARY = getattr(os, "O_BINARY", 0)
"""Windows would write two bytes for a line end."""
PRIVATE = 0o600
"""They hold people's prompts."""
_EXCLUSIVELY = os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY | getattr(os, "O_NOFOLLOW", 0)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EISDIR})
"""What file systems say that cannot sync a folder."""
_log = logging.getLogger("memserve.run")


def failed_beside(output: Path) -> Path:
    """answers.jsonl -> answers.failed.jsonl"""
    return output.with_name(f"{output.stem}.failed{output.suffix}")


def reserve_beside(output: Path) -> Path:
    """answers.jsonl -> answers.jsonl.reserve"""
    return output.with_name(output.name + ".reserve")


def batches_beside(output: Path) -> Path:
    """answers.jsonl -> answers.batches.jsonl"""
    return output.with_name(f"{output.stem}.batches{output.suffix}")


def local(name: object, what: str) -> Path:
    """A path on this machine; a URL would become a folder named `s3:`."""
    if _URL.match(str(name)):
        raise InvalidInput(f"{what} {str(name)[:80]!r} is a URL, and not of a store that a run writes to",
                           hint="name a local file, or for an output s3://, obs:// or gs://")  # fmt: skip
    return Path(str(name))


def distinct(requests: Any, output: Path, *, cache: Path | None, page: Path | None,
             lines: Path | None) -> None:  # fmt: skip
    """Refuse two names of one file, whatever links stand between, and another run's file of failures."""
    used = {"the output": output, "the file of failures": failed_beside(output),
            "the reserve": reserve_beside(output), "the list of batches": batches_beside(output)}  # fmt: skip
    if isinstance(requests, (str, Path)) and requests != "-":
        used = {"the requests": local(requests, "the file of requests"), **used}
    for what, named in (("the answer cache", cache), ("the page", page), ("the batch lines", lines)):
        if named is not None:
            used[what] = local(named, what)
    if output.exists() and not (output.is_file() or output.is_dir()):
        raise InvalidInput(f"{output} is no regular file: a run goes on from the answers that stand in it",
                           hint="name a file, as answers.jsonl")  # fmt: skip
    seen: dict[object, str] = {}
    for what, path in used.items():
        before = seen.setdefault(_identity(path), what)
        if before != what:
            raise InvalidInput(f"{path} is both {before} and {what}", hint="name another file")
    owner = output.with_name(output.name.replace(f".failed{output.suffix}", output.suffix))
    if owner != output and owner.exists():
        raise InvalidInput(f"{output} is where a run on {owner} writes its failures",
                           hint="name another output")  # fmt: skip


def _identity(path: Path) -> object:
    """Device and inode; the path in full where there is no file yet."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)  # of links that lead in a circle, too
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else os.path.realpath(path)


def refuse_foreign(path: Path, is_ours: Callable[[Path], bool]) -> None:
    """Refuse a file by name that lies where ours should and that memserve did not write."""
    if os.path.lexists(path) and not (stat.S_ISREG(path.lstat().st_mode) and is_ours(path)):
        raise InvalidInput(f"{path} is there, and no run of memserve wrote it",
                           hint="move it away, or name another output")  # fmt: skip


def create(path: Path) -> int:
    """A new file, open; whatever lies there already is an error."""
    return os.open(path, _EXCLUSIVELY, PRIVATE)


def scratch(path: Path, is_ours: Callable[[Path], bool]) -> int:
    """A new file in the place of what an interrupted run of ours may have left."""
    refuse_foreign(path, is_ours)
    path.unlink(missing_ok=True)
    return create(path)


def cut_torn(path: Path) -> None:
    """Drop what a crash or a full disk left of a last line: the next would be written behind it."""
    if path.exists():
        held = path.read_bytes()
        os.truncate(path, held.rfind(b"\n") + 1)


def make_folder(path: Path) -> None:
    """A folder for answers; one that is made is told, since its name may be mistyped."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        _log.warning("the folder %s was not there: it is made", path)


def sync_folder(path: Path) -> None:
    """So that a name that was just made or changed outlives a power cut."""
    try:
        descriptor = os.open(path.parent, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as broken:
        if broken.errno not in _NO_SYNC:
            raise RunError(f"cannot sync the folder of {path}: {broken.strerror}") from broken
    finally:
        os.close(descriptor)


STORES = ("s3", "obs", "gs")
PART_SECONDS = 30.0


def is_stored(output: object) -> TypeGuard[str]:
    """Whether an output is an object's address."""
    return isinstance(output, str) and output.partition("://")[0] in STORES and "://" in output


class StoredOutput:
    """The local copy of an object, brought here at the start and carried back while a run goes on.

    Parts are named by the offset at which they begin, so that any of them may be there twice; the whole
    object takes their place when the run ends.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store, self._name = _opened(url)
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memserve" / "runs"
        self.path = folder / blake2b(url.encode(), digest_size=8).hexdigest() / url.rpartition("/")[2]
        self._sent = 0
        self._stop, self._guard = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._carry, name="memserve-store", daemon=True)

    def fetch(self, *, afresh: bool = False) -> None:
        """Bring what the store has, where that is more than lies here."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = b"" if afresh else self._held()
        except OSError as broken:
            hint = "look after its keys and its address"
            raise RunError(f"cannot read {self.url}: {broken}", hint=hint) from broken
        here = self.path.stat().st_size if self.path.exists() else 0
        if len(held) > here:
            self.path.write_bytes(held)
            self.path.chmod(PRIVATE)
        self._sent = len(held)
        if afresh:
            self._set_aside()
        batches = batches_beside(self.path)
        if self._store.exists(there := str(batches_beside(Path(self._name)))):
            batches.write_bytes(self._store.cat_file(there))

    def save(self, path: Path) -> None:
        """Carry a file that says what is being paid for, at once, behind the answers that it knows of."""
        there = str(Path(self._name).with_name(path.name))
        try:
            self.send()
            if path.exists():
                self._store.put_file(str(path), there)
            elif self._store.exists(there):
                self._store.rm_file(there)
        except Exception as broken:  # each store has errors of its own
            raise RunError(f"cannot write {there} to the store of {self.url}: {broken}") from broken

    def __enter__(self) -> StoredOutput:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        failed = failed_beside(self.path)
        try:
            self._store.put_file(str(self.path), self._name)
            self._drop_parts()
            if failed.exists():
                self._store.put_file(str(failed), str(failed_beside(Path(self._name))))
        except Exception as broken:  # each store has errors of its own
            hint = f"its answers are in {self.path}"
            raise RunError(f"cannot write {self.url}: {broken}", hint=hint) from broken

    def send(self) -> None:
        """Carry the whole lines that are new."""
        with self._guard, self.path.open("rb") as file:
            file.seek(self._sent)
            fresh = file.read()
            fresh = fresh[: fresh.rfind(b"\n") + 1]
            if fresh:
                self._store.pipe_file(f"{self._name}.parts/{self._sent:020d}", fresh)
                self._sent += len(fresh)

    def _carry(self) -> None:
        while not self._stop.wait(PART_SECONDS):
            self._try()

    def _try(self) -> None:
        try:
            if self.path.exists():
                self.send()
        except Exception as broken:  # the next part tries again
            _log.warning("cannot write %s: %s", self.url, broken)

    def _held(self) -> bytes:
        whole: bytes = self._store.cat_file(self._name) if self._store.exists(self._name) else b""
        for name in self._parts():
            start = int(name.rpartition("/")[2])
            part = self._store.cat_file(name)
            if start <= len(whole) < start + len(part):
                whole += part[len(whole) - start :]
        return whole

    def _parts(self) -> list[str]:
        with suppress(FileNotFoundError):
            return sorted(self._store.ls(f"{self._name}.parts", detail=False))
        return []

    def _drop_parts(self) -> None:
        for name in self._parts():
            self._store.rm_file(name)

    def _set_aside(self) -> None:
        if self._store.exists(self._name):
            number = 1
            while self._store.exists(f"{self._name}.old-{number}"):
                number += 1
            self._store.mv(self._name, f"{self._name}.old-{number}")
        self._drop_parts()


def _opened(url: str) -> tuple[Any, str]:
    """The file system and the name in it; obs:// is spoken to as S3, at OBS_ENDPOINT."""
    scheme, _, name = url.partition("://")
    if not name.partition("/")[2]:
        raise InvalidInput(f"{url[:80]!r} names no object", hint="s3://BUCKET/answers.jsonl")
    fsspec = need("stores", "fsspec")
    options: dict[str, Any] = {}
    if scheme == "obs":
        endpoint = os.environ.get("OBS_ENDPOINT")
        if not endpoint:
            raise InvalidInput("obs:// needs OBS_ENDPOINT", hint="https://obs.REGION.myhuaweicloud.com")
        keys = {"key": os.environ.get("OBS_ACCESS_KEY_ID"), "secret": os.environ.get("OBS_SECRET_ACCESS_KEY")}
        options = {"endpoint_url": endpoint, **keys}
    try:
        return fsspec.filesystem("s3" if scheme == "obs" else scheme, **options), name
    except ImportError as broken:
        raise missing("stores", "gcsfs" if scheme == "gs" else "s3fs") from broken
