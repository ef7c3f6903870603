"""The asking loop for many machines: Ray Data's actor pools hold one generator each, the journal stays here.

Ray starts a task again when its worker dies, so a task is as small as can be: one request for an engine
behind a wire, one short list for a local one. A killed worker loses no more than what it was working on, and
an answer that comes twice is written once.
"""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from memserve.errors import BudgetSpent, ConnectionFailed, EngineFailed, InvalidInput, MemserveError
from memserve.missing import missing
from memserve.protocol import Capabilities, Completion
from memserve.run.ask import Asker, LocalLoop
from memserve.run.limits.budget import Spending
from memserve.run.limits.pace import Ticket
from memserve.run.limits.regulator import Judgement, Regulator
from memserve.run.options import Options
from memserve.run.requests import Item, arrange, digest
from memserve.run.store.results import Results

STANDARD = {"num_cpus": 1.0}
_NAMES = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}


@contextmanager
def cluster(options: Options) -> Iterator[int]:
    """Be connected; the number of workers. A cluster that was joined goes on afterwards."""
    ray = _ray()
    joined = not ray.is_initialized()
    if joined:
        _join(ray, options.address)
    try:
        workers = options.workers or sum(node["Alive"] for node in ray.nodes())
        _check_resources(ray.cluster_resources(), workers, remote_arguments(options))
        with _quiet(ray):
            yield workers
    finally:
        if joined:
            ray.shutdown()


def remote_arguments(options: Options) -> dict[str, Any]:
    """What each worker holds of its machine."""
    return {**STANDARD, **options.worker_resources}


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing("ray", "Ray Data, which spreads a run over machines") from error
    return ray


def _join(ray: Any, address: str | None) -> None:
    """A named cluster, the one of RAY_ADDRESS or of this machine, or else a new one of this machine alone."""
    quiet = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        ray.init(address=address, **quiet, **({} if address else {"include_dashboard": False}))
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as broken:
        where = address or "of this machine"
        raise ConnectionFailed(
            f"no Ray cluster {where}: {str(broken)[:200]}", hint="ray start --head on one machine first"
        ) from broken


def _check_resources(resources: dict[str, float], workers: int, each: dict[str, Any]) -> None:
    """Ray would wait for ever for what the cluster does not have."""
    wanted = {_NAMES[name]: amount for name, amount in each.items() if name in _NAMES and amount}
    wanted |= each.get("resources") or {}
    for name, amount in wanted.items():
        there = resources.get(name, 0.0)
        if there < amount * workers:
            raise InvalidInput(
                f"{workers} workers need {amount * workers:g} {name}, and the Ray cluster has {there:g}",
                hint="fewer workers, or more nodes: ray start --address HEAD:6379",
            )


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """The run has a progress line of its own; answers come as they are ready."""
    context = ray.data.DataContext.get_current()
    before = context.enable_progress_bars
    context.enable_progress_bars = False
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before
        logger.setLevel(level)


TASKS = 10_000
"""Tasks to one execution of Ray Data; the next execution opens its generators anew."""
LIST = 32
"""Requests to one call of a local engine: what a killed worker may have to do again."""
CHARACTERS = 256 << 20
EACH = 16
"""In flight in each worker where the caller names no number."""
NAP_SECONDS = 0.2
_log = logging.getLogger("memserve.run")


class RayLoop:
    """Hands windows of requests to Ray Data until there are none, or something stops it."""

    def __init__(self, remote: RemoteGenerator, results: Results, spending: Spending,
                 options: Options) -> None:  # fmt: skip
        self.error: BaseException | None = None
        """Why the run ended before its input did."""
        self._remote, self._results, self._options = remote, results, options
        self._regulator = Regulator(spending, **options.limits)
        self._again: list[Item] = []
        self._stopping = False

    def stop(self) -> None:
        """Take no more answers than are here."""
        self._stopping = True

    def run(self, items: Iterator[Item]) -> None:
        """Ask for every item."""
        with cluster(self._options) as workers:
            while not self._stopping:
                tickets = self._window(items)
                if not tickets:
                    break
                self._ask(tickets, workers)
        for item, error in self._regulator.left_over():
            self._results.failed(item, error)

    def _window(self, items: Iterator[Item]) -> dict[int, Ticket]:
        """What is asked again first, then as much of the input as one execution bears."""
        window: dict[int, Ticket] = {}
        size, most = 0, TASKS * (LIST if self._remote.batches else 1)
        while len(window) < (1 if self._regulator.down else most) and size < CHARACTERS:
            item = self._again.pop(0) if self._again else next(items, None)
            if item is None or not self._may_ask(item, alone=not window):
                break
            window[item.index] = self._regulator.begin(item)
            size += item.characters
        return window

    def _may_ask(self, item: Item, *, alone: bool) -> bool:
        """Wait for the end of a pause. What the budget does not bear waits until true costs are known."""
        try:
            while (seconds := self._regulator.wait(item, 0)) > 0 and not self._stopping:
                time.sleep(min(seconds, NAP_SECONDS))
        except BudgetSpent as spent:
            self._again.insert(0, item)
            if alone:
                self._abort(spent)
            return False
        return not self._stopping

    def _ask(self, tickets: dict[int, Ticket], workers: int) -> None:
        items = [ticket.item for ticket in tickets.values()]
        if self._options.order == "prefix":
            items = arrange(items)
        for row in self._answers(items, workers):
            ticket = tickets.pop(row["index"], None)  # None: a task that ran again tells what is known
            if ticket is not None:
                self._settle(ticket, unpack(row["answer"]), row["seconds"], len(tickets))
            if self._results.trouble:
                self._abort(self._results.trouble)
            if self._stopping or self._regulator.down:
                break
        self._again += [self._regulator.withdraw(ticket) for ticket in tickets.values()]

    def _answers(self, items: list[Item], workers: int) -> Iterator[dict[str, Any]]:
        """Rows as they come, in any order."""
        import ray.data

        lists = self._remote.batches
        rows = [{"index": item.index, "request": pack(item.request)} for item in items]
        asked = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // (LIST if lists else 1)))
        flight = 1 if lists else self._flight(workers)
        pool = ray.data.ActorPoolStrategy(
            size=workers, max_concurrent_calls_per_actor=flight, max_tasks_in_flight_per_actor=2 * flight
        )
        how = {
            "compute": pool,
            "fn_constructor_args": (pack(self._remote),),
            **remote_arguments(self._options),
        }
        answered = asked.map_batches(Lists, batch_size=None, **how) if lists else asked.map(Single, **how)
        yield from answered.iter_rows()

    def _flight(self, workers: int) -> int:
        return max(1, self._options.concurrency // workers) if self._options.concurrency else EACH

    def _settle(self, ticket: Ticket, answer: Any, seconds: float, in_flight: int) -> None:
        if isinstance(answer, Exception):
            self._judge(self._regulator.failed(ticket, answer, in_flight))
            return
        self._results.answered(ticket.item, answer, seconds)
        for item, error in self._regulator.answered(ticket, answer.usage):
            self._results.failed(item, error)

    def _judge(self, judgement: Judgement) -> None:
        for item, error in judgement.failed:
            self._results.failed(item, error)
        self._again += judgement.again
        if judgement.abort:
            self._abort(judgement.abort)

    def _abort(self, error: BaseException) -> None:
        if not self._stopping:
            _log.error("stopping: %s", error)
        self.error, self._stopping = self.error or error, True


@dataclass(frozen=True)
class RemoteGenerator:
    """Opens a generator in a worker. Stands for it in the caller's process, where no engine is loaded."""

    open: Callable[[], Any] = field(repr=False)
    capabilities: Capabilities
    identity: dict[str, str]

    @property
    def batches(self) -> bool:
        """The engine wants lists."""
        return self.capabilities.batches


def remote(generator: Any) -> RemoteGenerator:
    """From a generator that memserve opened, or from anything that opens one when called."""
    from memserve.client import opener as opener_of

    generates = not isinstance(generator, type) and (
        hasattr(generator, "agenerate") or hasattr(generator, "generate")
    )
    opener = opener_of(generator) if generates else generator
    if opener is None or not callable(opener):
        raise InvalidInput(
            f"workers cannot open a {type(generator).__name__} of their own",
            hint="pass what opens it: functools.partial(memserve.generator, 'model', backend='NAME')",
        )
    known = generator.capabilities if generates else _capabilities(opener)
    own = generator.identity if generates else {"backend": known.backend, "model": known.model}
    try:
        pack(opener)
    except Exception as broken:
        raise InvalidInput(f"what opens the generator cannot be sent to workers: {broken}") from broken
    return RemoteGenerator(opener, known, {name: str(value) for name, value in own.items() if value})


def _capabilities(opener: Any) -> Capabilities:
    """What the backend that will be opened says of itself; nothing is known of another callable."""
    known = getattr(opener, "capabilities", None)
    if isinstance(known, Capabilities):
        return known
    if not isinstance(opener, partial) or opener.keywords.get("backend") is None:
        return Capabilities(backend=getattr(opener, "__name__", "workers"), model=None)
    from dataclasses import replace

    from memserve import registry

    model = opener.args[0] if opener.args else opener.keywords.get("model_or_plan")
    found = registry.find(str(opener.keywords["backend"])).capabilities
    return replace(found, model=model if isinstance(model, str) else None)


def pack(value: Any) -> bytes:
    """By value where pickle can only name things: what a script or a notebook defines."""
    try:
        from ray import cloudpickle
    except ImportError:
        return pickle.dumps(value)
    packed: bytes = cloudpickle.dumps(value)
    return packed


def unpack(packed: bytes) -> Any:
    """What was packed by us, in another process of this run."""
    return pickle.loads(packed)


def packed_answer(answer: Any) -> bytes:
    """An answer, or the error instead of it; one that cannot travel goes as words."""
    try:
        packed = pack(answer)
        unpack(packed)
    except Exception:
        return pack(EngineFailed(f"{type(answer).__name__}: {answer}"))
    return packed


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
        free, whole = Spending(None, None), len(items)
        batches = LocalLoop(self._generator, kept, free, Options(), first=whole)  # type: ignore[arg-type]
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
