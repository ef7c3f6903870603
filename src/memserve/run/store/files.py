"""The files of a run: different ones, on this machine, readable by their owner, touched only if ours."""

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memserve.errors import InvalidInput, RunError

BINARY = getattr(os, "O_BINARY", 0)
"""Windows would write two bytes for a line end."""
PRIVATE = 0o600
"""They hold people's prompts."""
_EXCLUSIVELY = os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY | getattr(os, "O_NOFOLLOW", 0)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EISDIR})
"""What file systems say that cannot sync a folder."""


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
        raise InvalidInput(f"{what} {str(name)[:80]!r} is a URL, and a run reads and writes local files",
                           hint="name a local file, and copy it before or afterwards")  # fmt: skip
    return Path(str(name))


def distinct(requests: Any, output: Path, cache: Path | None) -> None:
    """Refuse two names of one file, whatever links stand between, and another run's file of failures."""
    used = {"the output": output, "the file of failures": failed_beside(output),
            "the reserve": reserve_beside(output), "the list of batches": batches_beside(output)}  # fmt: skip
    if isinstance(requests, (str, Path)) and requests != "-":
        used = {"the requests": local(requests, "the file of requests"), **used}
    if cache is not None:
        used["the answer cache"] = local(cache, "the answer cache")
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
        return path.resolve()
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else path.resolve()


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
