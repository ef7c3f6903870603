"""The asking loop for many machines: Ray Data's actor pools hold one generator each, the journal stays here.

Ray starts a task again when its worker dies, so a task is as small as can be: one request for an engine
behind a wire, one short list for a local one. A killed worker loses no more than what it was working on, and
an answer that comes twice is written once.
"""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from memserve.errors import BudgetSpent, ConnectionFailed, InvalidInput
from memserve.extras import missing
from memserve.run.distributed.remote_generator import RemoteGenerator, pack, unpack
from memserve.run.limits.budget import Spending
from memserve.run.limits.in_flight import Ticket
from memserve.run.limits.regulator import Judgement, Regulator
from memserve.run.options import Options
from memserve.run.requests import order
from memserve.run.requests.item import Item
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
            items = order.arrange(items)
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

        from memserve.run.distributed.worker import Lists, Single

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
