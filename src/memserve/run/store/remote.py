"""An output on an object store: written here, carried there in parts, since the machine may vanish."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeGuard

from memserve.errors import InvalidInput, RunError
from memserve.extras import missing, need
from memserve.run.store import files

STORES = ("s3", "obs", "gs")
PART_SECONDS = 30.0
_log = logging.getLogger("memserve.run")


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
        self._stop = threading.Event()
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
            self.path.chmod(files.PRIVATE)
        self._sent = len(held)
        if afresh:
            self._set_aside()

    def __enter__(self) -> StoredOutput:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        failed = files.failed_beside(self.path)
        try:
            self._store.put_file(str(self.path), self._name)
            self._drop_parts()
            if failed.exists():
                self._store.put_file(str(failed), str(files.failed_beside(Path(self._name))))
        except Exception as broken:  # each store has errors of its own
            hint = f"its answers are in {self.path}"
            raise RunError(f"cannot write {self.url}: {broken}", hint=hint) from broken

    def send(self) -> None:
        """Carry the whole lines that are new."""
        with self.path.open("rb") as file:
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
        raise missing("stores", str(broken)) from broken
