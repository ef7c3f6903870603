"""`vllm run-batch`: an engine that is started for one file of requests, and writes one of answers."""

import os
import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from memserve import registry
from memserve.engines.environment import home
from memserve.errors import EngineFailed, MemserveError, Unsupported
from memserve.http.body import text
from memserve.http.engine import first_answers, rows
from memserve.protocol import Completion, Request
from memserve.serve.served import Errand
from memserve_vllm.engine import flags, started

_NOWHERE = "http://127.0.0.1:9/v1"
"""Requests are written as for a server of vLLM's, and go into a file."""
_LACKS = ("raw", "token_ids", "score", "count_tokens", "truncate", "stream")
"""What only a server answers: run-batch has chat (vllm 0.32.0 entrypoints/launchers/run_batch.py)."""


class BatchOnly:
    """Answers through its batch service alone."""

    any_loop = True

    def __init__(self, model: str, options: Mapping[str, Any]) -> None:
        how, own, name = started(model, options)
        length = str(own.get("max_model_len"))
        known: dict[str, Any] = {"context": length} if length.isdigit() else {}
        writer: Any = registry.find("openai").open(
            name, base_url=_NOWHERE, dialect="vllm", api_key=secrets.token_hex(), **known
        )
        self._writer = writer
        lacking: dict[str, Any] = dict.fromkeys(_LACKS, False)
        self.capabilities = replace(writer.capabilities, backend="vllm", **lacking)
        self.fills_max_tokens: bool = writer.fills_max_tokens
        self.identity = {"backend": "vllm", "model": name}
        how = {part: how[part] for part in ("python", "env") if part in how}
        self.batch_service = RunBatch(writer.batch_service, ["--model", model, *flags(own)], how)

    async def complete(self, request: Request) -> Completion:
        """Refused."""
        raise Unsupported("vllm", "single requests", "it was opened with batch=True")

    def close(self) -> None:
        """End what runs."""
        self._writer.close()
        self.batch_service.stop()


class RunBatch:
    """One engine at a time; each batch is a file, whose path is its id."""

    batch_limits = (50_000, 256 << 20)
    """Large, since each batch loads the weights again."""
    batch_least = 1

    def __init__(self, lines: Any, words: list[str], how: Mapping[str, Any]) -> None:
        self._lines, self._words, self._how = lines, words, how
        self._errand: tuple[str, Errand] | None = None

    async def submit_batch(self, name: str, requests: Mapping[str, Request]) -> str:
        """Write its lines; under its own name once they are on disk."""
        _, lines = self._lines.written(requests)
        path = _path(name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = path.with_suffix(".part")
        with open(part, "wb", opener=partial(os.open, mode=0o600)) as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        return str(path)

    async def find_batch(self, name: str, since: float, count: int, others: Collection[str]) -> str | None:
        """The file of that name, if it was written."""
        return str(_path(name)) if _path(name).exists() else None

    async def batch_ended(self, identity: str) -> bool:
        """Whether there are answers, be it of an engine that was killed; otherwise it is started, in turn."""
        mine = self._errand is not None and self._errand[0] == identity
        if mine and self._running(identity):
            return False
        if _answers(identity) or not Path(identity).exists():
            return True
        if mine:
            raise EngineFailed("vllm run-batch ended without an answer", hint=f"log: {_log(identity)}")
        if self._errand is None:
            words = ["vllm", "run-batch", "-i", identity, "-o", str(_out(identity)), *self._words]
            self._errand = identity, Errand(words, "vllm", _log(identity), **self._how)
        return False

    async def batch_answers(self, identity: str, requests: Mapping[str, Request],
                            ) -> dict[str, Completion | MemserveError]:  # fmt: skip
        """What the file of answers holds."""
        return first_answers(self._lines.read(_answers(identity), requests))

    def batch_done(self, identity: str) -> None:
        """Remove its files."""
        for path in (Path(identity), _out(identity), _log(identity)):
            path.unlink(missing_ok=True)

    def _running(self, identity: str) -> bool:
        """Whether the engine works on; where it died, the answers that it had written count."""
        assert self._errand is not None
        try:
            if self._errand[1].running():
                return True
        except EngineFailed:
            if not _answers(identity):
                raise
        self.stop()
        return False

    def stop(self) -> None:
        """End the engine that runs."""
        if self._errand is not None:
            self._errand[1].stop()
            self._errand = None


def _path(name: str) -> Path:
    return home().parent / "batches" / f"{name}.jsonl"


def _out(identity: str) -> Path:
    return Path(identity).with_suffix(".answers")


def _log(identity: str) -> Path:
    return Path(identity).with_suffix(".log")


def _answers(identity: str) -> list[dict[str, Any]]:
    """The whole lines of its answers; one that was being written has no end."""
    try:
        whole = _out(identity).read_bytes().rpartition(b"\n")[0]
    except FileNotFoundError:
        return []
    return rows(text(whole, {}, strict=True), {})
