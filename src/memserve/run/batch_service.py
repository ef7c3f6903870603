"""A run through the provider's batch service: submitted once whatever happens, fetched when it is done."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from memserve.cli import counted
from memserve.errors import (
    BadAnswer,
    InvalidInput,
    MemserveError,
    NotFound,
    Overloaded,
    RemoteError,
    Throttled,
)
from memserve.files import STUMBLES, parsed
from memserve.http.transport import Refused
from memserve.protocol import BatchService, Request, SupportsBatchDone
from memserve.run import ask
from memserve.run.limits.budget import Spending, limit
from memserve.run.requests import Item, chosen
from memserve.run.store import files, record
from memserve.run.store.results import Results

FIRST_POLL, LONGEST_POLL = 2.0, 60.0
LOOKS, LOOK_SECONDS = 3, 1.0
"""How often a batch whose creation nobody answered is looked for before it is made anew."""
MOST_TRIES, MOST_SUBMITS = 3, 6
ANSWER, TOKEN, LOGPROB = 2048, 8, 256
"""Bytes of an answer's frame, of a token (JSON may escape its characters), and of a log-probability."""
MOST_ANSWERS = 56 << 20
"""Bytes of a batch's answers, at their longest: they come as one body, and no reader takes above 64 MiB."""
_ROW = re.compile(rb'\{"batch": "[0-9a-f]{16}", "state": ')
_log = logging.getLogger("memserve.run")


@dataclass
class Batch:
    """One batch: who is in it, and how far it is."""

    name: str
    """16 hexadecimal digits; its requests are called NAME-0, NAME-1, ..."""
    keys: list[tuple[Any, str]]
    """The id and the digest of each request, in order."""
    at: float
    id: str | None = None
    """The provider's; None until its creation was answered."""
    items: dict[str, Item] = field(default_factory=dict)
    """Those of its requests that still have no answer, by their names in the batch."""


class Ledger:
    """Which batches are with the provider: written and synced before anything is sent."""

    def __init__(self, path: Path, saved: Callable[[Path], None] | None = None) -> None:
        files.refuse_foreign(path, is_ours)
        self.path = path
        self._saved = saved or (lambda path: None)
        self.batches: dict[str, Batch] = {}
        files.cut_torn(path)
        for row in _rows(path):
            self._apply(row)

    def plan(self, items: Iterable[Item]) -> Batch:
        """A batch that is about to be submitted."""
        listed = list(items)
        keys = [(item.id, item.digest.hex()) for item in listed]
        batch = Batch(secrets.token_hex(8), keys, time.time())
        self._write(batch, "planned", requests=keys, at=batch.at)
        batch.items = {f"{batch.name}-{place}": item for place, item in enumerate(listed)}
        return batch

    def submitted(self, batch: Batch, identity: str) -> None:
        """The provider has it."""
        batch.id = identity
        self._write(batch, "submitted", id=identity)

    def forget(self, batch: Batch) -> None:
        """What was taken for it is somebody else's: it is to be submitted."""
        batch.id, batch.at = None, time.time()
        self._write(batch, "planned", requests=batch.keys, at=batch.at)

    def done(self, batch: Batch) -> None:
        """Its answers are on disk; the last one takes the file along."""
        self._write(batch, "done")
        if not self.batches:
            self.path.unlink(missing_ok=True)
            self._saved(self.path)

    def _apply(self, row: dict[str, Any]) -> None:
        name = row["batch"]
        if row["state"] == "done":
            self.batches.pop(name, None)
        elif row["state"] == "submitted" and name in self.batches:
            self.batches[name].id = row["id"]
        elif row["state"] == "planned":
            self.batches[name] = Batch(name, [(one, key) for one, key in row["requests"]], row["at"])

    def _write(self, batch: Batch, state: str, **more: Any) -> None:
        line = record.signed(record.dumps({"batch": batch.name, "state": state, **more})[:-1])
        if not self.path.exists():
            os.close(files.create(self.path))
            files.sync_folder(self.path)
        with self.path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._saved(self.path)
        if state == "done":
            self.batches.pop(batch.name, None)
        else:
            self.batches[batch.name] = batch


def _most_bytes(request: Request) -> int:
    """What the answer to a request takes at most, about."""
    each = TOKEN if request.logprobs is None else TOKEN + LOGPROB * (1 + request.logprobs)
    return ANSWER + (limit(request) + int(request.thinking or 0)) * each


def is_ours(path: Path) -> bool:
    """Whether a run wrote every line, the last of which a crash may have torn."""
    with path.open("rb") as file:
        return all(_ROW.match(raw) or not raw.endswith(b"\n") for raw in file)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with path.open("rb") as file:
            yield from (parsed(raw) for raw in file if record.is_signed(raw))


class BatchLoop:
    """Collects every request, submits them in batches, and waits until all have an answer."""

    def __init__(self, generator: Any, results: Results, spending: Spending, ledger: Ledger) -> None:
        self.error: BaseException | None = None
        self._generator = generator
        self._service: BatchService = generator.batch_service()
        self._results = results
        self._spending = spending
        self._ledger = ledger
        self._estimate = spending.estimate
        self._tries: dict[int, int] = {}
        self._promised: dict[int, float] = {}
        self._stopping = False

    def stop(self) -> None:
        """Wait no longer: the batches stay with the provider, and the next run fetches them."""
        self._stopping = True

    def run(self, items: Iterator[Item]) -> None:
        """Until every request is answered or has failed."""
        fresh = self._sorted(items)
        try:
            asyncio.run(self._all(fresh))
        except MemserveError as broken:
            if isinstance(broken, NotFound) and self._ledger.batches:
                broken.hint = f"if the provider keeps it no more, remove {self._ledger.path}"
            self.error = broken
        waiting = len(self._ledger.batches)
        if waiting and (self._stopping or self.error):
            were = "batch was" if waiting == 1 else "batches were"
            _log.warning("%d %s handed over: run again to fetch the answers", waiting, were)

    def _sorted(self, items: Iterator[Item]) -> list[Item]:
        """The items that no batch holds; the others are given back to theirs."""
        held = {
            (record.name_of(one), key): (batch, f"{batch.name}-{place}")
            for batch in self._ledger.batches.values() for place, (one, key) in enumerate(batch.keys)
        }  # fmt: skip
        rest = []
        for item in items:
            place = held.get((record.name_of(item.id), item.digest.hex()))
            if place is not None:
                place[0].items[place[1]] = item
                self._promise(item)  # it is being paid for, and comes before anything new
            else:
                rest.append(item)
        fresh = []
        for item in rest:
            if not self._afford(item):
                self.error = self._spending.spent()
                break
            fresh.append(item)
        return fresh

    def _afford(self, item: Item) -> bool:
        affords = self._spending.affords(self._estimate.of(item))
        if affords:
            self._promise(item)
        return affords

    def _promise(self, item: Item) -> None:
        self._promised[item.index] = self._spending.promise(self._estimate.of(item))

    async def _all(self, fresh: list[Item]) -> None:
        for batch in list(self._ledger.batches.values()):
            if batch.id is None:
                await self._adopt(batch)
        least = self._service.batch_least
        begun = self._ledger.batches or self._results.counts.resumed or self._results.counts.failed
        if 0 < len(fresh) < least and not begun:
            few = f"{counted(len(fresh), 'request')}: too few"
            raise InvalidInput(f"{few}, the batch service takes {least} or more", hint="leave --batch out")
        await self._submit(fresh)
        seconds = FIRST_POLL
        while self._ledger.batches and not self._stopping:
            looked = [await self._look(batch) for batch in list(self._ledger.batches.values())]
            again = [item for items in looked for item in items]
            if again:
                await self._submit(again)
                seconds = FIRST_POLL
            elif self._ledger.batches:
                await self._sleep(seconds)
                seconds = min(LONGEST_POLL, seconds * 1.5)

    async def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping:
            await asyncio.sleep(min(0.2, seconds))

    async def _adopt(self, batch: Batch) -> None:
        """A batch whose creation nobody answered: the provider has it, or it is submitted now."""
        for _ in range(LOOKS):
            found = await self._find(batch)
            if found is not None:
                self._ledger.submitted(batch, found)
                return
            await self._sleep(LOOK_SECONDS)
        if len(batch.items) == len(batch.keys):
            await self._send(batch)
        else:
            rest = list(batch.items.values())
            self._ledger.done(batch)
            await self._submit(rest)

    async def _find(self, batch: Batch) -> str | None:
        others = {one.id for one in self._ledger.batches.values() if one.id is not None}
        service = self._service
        return await service.find_batch(batch.name, batch.at, len(batch.keys), others)

    async def _submit(self, items: list[Item]) -> None:
        most, largest = self._service.batch_limits
        least = self._service.batch_least
        local = isinstance(self._service, SupportsBatchDone)  # its answers are a file here, of any size
        longest = float("inf") if local else MOST_ANSWERS
        group: list[Item] = []
        size = told = 0
        for item in items:
            told += (answer := _most_bytes(item.request))
            large = size + item.characters > largest or (told > longest and len(group) >= least)
            if group and (len(group) == most or large):
                await self._send(self._ledger.plan(group))
                group, size, told = [], 0, answer
            group.append(item)
            size += item.characters
        if group and len(group) < least:
            await self._one_by_one(group)
        elif group and not self._stopping:
            await self._send(self._ledger.plan(group))

    async def _one_by_one(self, items: list[Item]) -> None:
        """The rest of a batch, fewer than the service takes: each is asked for by itself, at full price."""
        batch = Batch("", [], time.time(), items={str(place): item for place, item in enumerate(items)})
        waiting, self._spending.batch = list(batch.items), False
        while waiting and not self._stopping:
            item, batch.at = batch.items[name := waiting.pop()], time.time()
            try:
                settings = chosen(item.request)
                answer: Any = await asyncio.to_thread(
                    self._generator.generate, item.request.prompt, **settings
                )
            except MemserveError as error:
                answer = error
            if self._settle(batch, name, answer) is not None:
                batch.items[name] = item
                waiting.append(name)
        self._spending.batch = True

    async def _send(self, batch: Batch) -> None:
        """Submit it; where nobody answers, it is looked for, and never blindly sent again."""
        prepared = {name: self._prepared(item) for name, item in batch.items.items()}
        requests = {name: one for name, one in prepared.items() if isinstance(one, Request)}
        for name in prepared.keys() - requests.keys():
            self._settle(batch, name, prepared[name])
        if len(requests) < self._service.batch_least:
            self._ledger.done(batch)
            await self._one_by_one(list(batch.items.values()))
            return
        for tries in count(1):
            try:
                identity = await self._service.submit_batch(batch.name, requests)
                break
            except (Throttled, Overloaded, Refused) as broken:  # it was not taken: safe to ask again
                if not broken.retryable or tries == MOST_SUBMITS or self._stopping:
                    raise
                await self._sleep(min(LONGEST_POLL, 2.0**tries))
            except RemoteError as broken:
                found = await self._find(batch) if broken.retryable else None
                if found is None:
                    raise
                identity = found
                break
        self._ledger.submitted(batch, identity)

    def _prepared(self, item: Item) -> Request | MemserveError:
        try:
            request: Request = self._generator.prepare(item.request.prompt, **chosen(item.request))
        except MemserveError as error:
            return error
        return request

    async def _look(self, batch: Batch) -> list[Item]:
        """Write down what a batch that has ended holds; the items that must be asked again."""
        if batch.id is None or not await self._service.batch_ended(batch.id):
            return []
        requests = {name: item.request for name, item in batch.items.items()}
        try:
            answers = await self._service.batch_answers(batch.id, requests)
        except STUMBLES as broken:
            raise BadAnswer(f"the answers of batch {batch.id} are of no known shape ({broken!r})") from None
        if answers is None:
            self._ledger.forget(batch)
            await self._adopt(batch)
            return []
        settled = [self._settle(batch, name, answers.get(name)) for name in list(batch.items)]
        again = [item for item in settled if item is not None]
        self._results.sync()
        if isinstance(self._service, SupportsBatchDone):
            self._service.batch_done(batch.id)
        self._ledger.done(batch)
        return again

    def _settle(self, batch: Batch, name: str, answer: Any) -> Item | None:
        """One answer, or the item of one that is worth asking for again."""
        item = batch.items.pop(name)
        promised = self._promised.pop(item.index, 0.0)
        try:
            if answer is None or isinstance(answer, MemserveError):
                raise answer or RemoteError("the batch has no answer to this request")
            completion = ask.sound(answer)
        except Exception as error:
            self._spending.settle(promised, None)
            tries = self._tries[item.index] = self._tries.get(item.index, 0) + 1
            again = answer is None or getattr(error, "retryable", False)
            if again and tries < MOST_TRIES and self._afford(item):
                return item
            self._results.failed(item, error)
        else:
            self._spending.settle(promised, completion.usage)
            self._results.answered(item, completion, time.time() - batch.at)
        return None
