"""What runs in Ray's actors: a generator each, asked for one request or for a list."""

import time
from typing import Any

from memserve.errors import EngineFailed, MemserveError
from memserve.protocol import Completion
from memserve.run.asking.ask import Asker
from memserve.run.asking.local_loop import LocalLoop
from memserve.run.distributed.remote_generator import packed_answer, unpack
from memserve.run.limits.budget import Spending
from memserve.run.options import Options
from memserve.run.requests.item import Item, digest


class Single:
    """One request at a time of many in flight, for engines behind a wire."""

    def __init__(self, remote: bytes) -> None:
        self._asker = Asker(unpack(remote).open(), 256)

    async def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The answer or the error; raising would end the whole run."""
        began = time.monotonic()
        answer: Completion | Exception
        try:
            answer = await self._asker.ask(unpack(row["request"]))
        except Exception as error:
            answer = error
        return _row(row["index"], answer, time.monotonic() - began)


class Lists:
    """A list at a time, for local engines."""

    def __init__(self, remote: bytes) -> None:
        self._generator = unpack(remote).open()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """An answer or an error for each."""
        requests = [unpack(bytes(request)) for request in batch["request"]]
        pairs = zip(batch["index"].tolist(), requests, strict=True)
        items = [Item(index, index, request, digest(request)) for index, request in pairs]
        kept = Kept()
        batches = LocalLoop(self._generator, kept, Spending(None, None), Options())  # type: ignore[arg-type]
        batches.run(iter(items))
        left = batches.error or EngineFailed("the engine left this request out")
        rows = [kept.rows.get(item.index) or _row(item.index, left, 0.0) for item in items]
        return {name: [row[name] for row in rows] for name in rows[0]}


class Kept:
    """Takes outcomes as a run's results do, and keeps them to be sent."""

    trouble = None

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}

    def answered(self, item: Item, completion: Completion, seconds: float) -> None:
        """Keep an answer."""
        self.rows[item.index] = _row(item.index, completion, seconds)

    def failed(self, item: Item, error: BaseException) -> None:
        """Keep a failure."""
        self.rows[item.index] = _row(item.index, error, 0.0)


def _row(index: int, answer: Any, seconds: float) -> dict[str, Any]:
    plain = isinstance(answer, MemserveError) or not isinstance(answer, BaseException)
    sent = answer if plain else EngineFailed(f"{type(answer).__name__}: {answer}")
    return {"index": index, "answer": packed_answer(sent), "seconds": seconds}
