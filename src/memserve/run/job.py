"""One run from its first check to its summary."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from memserve.client.generation import Generator
from memserve.errors import InvalidInput, MemserveError, Unsupported
from memserve.run import ask, report, summary
from memserve.run.ask import LocalLoop
from memserve.run.async_loop import AsyncLoop
from memserve.run.batch_service import BatchLoop, Ledger
from memserve.run.distributed import RayLoop, remote
from memserve.run.limits.budget import Spending, dearest, price_of
from memserve.run.observers import observers
from memserve.run.options import Options
from memserve.run.progress import Progress
from memserve.run.requests import Entry, Item, check_requests, count_requests, entries, name_in, read_item
from memserve.run.store import files, results
from memserve.run.store.cache import Cache
from memserve.run.store.files import StoredOutput, is_stored
from memserve.run.store.journal import Journal, is_reserve
from memserve.run.store.record import ANSWERED, FAILED, Action, KnownIds, Stamp
from memserve.run.store.results import Failures, Results
from memserve.run.summary import Summary
from memserve.run.tasks import Task, adapted, entry

T = TypeVar("T")
_HANGUP = getattr(signal, "SIGHUP", None)
_SIGNALS = tuple(one for one in (signal.SIGINT, signal.SIGTERM, _HANGUP) if one is not None)
_log = logging.getLogger("memserve.run")


class Stopped(BaseException):
    """Breaks off a blocking read. No Exception, so that the code that is read from cannot swallow it."""


class Interrupts:
    """Signals are caught only in the main thread: elsewhere Python does not allow it."""

    def __init__(self, stop: Callable[[], None], most: int) -> None:
        self._stop = stop
        self._most = most
        self._reading = False
        self._before: dict[int, Any] = {}
        self.caught: int | None = None
        """The first signal that came."""
        self._count = 0
        self._nudged = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number != _HANGUP or signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def next(self, iterator: Iterator[T]) -> T:
        """The next value of an iterator that may block for long; a signal breaks it off."""
        self._reading = True
        try:
            return next(iterator)
        finally:
            self._reading = False

    def nudge(self) -> None:
        """Break off a blocking read because the run has stopped; from any thread."""
        if self._reading and self._before and hasattr(signal, "pthread_kill"):
            self._nudged = True
            with suppress(ProcessLookupError):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def again(self) -> None:
        """Deliver the caught signal to whoever handled it before; the run has ended cleanly."""
        if self.caught == signal.SIGINT:
            raise KeyboardInterrupt
        if self.caught is not None:
            signal.raise_signal(self.caught)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._nudged:
            self._nudged = False
            self._break_off()
            return
        self.caught = self.caught or number
        self._count += 1
        if self._count == 1:
            _log.warning("stopping cleanly; press Ctrl-C again to stop at once")
        self._stop()
        if self._count >= self._most:
            raise KeyboardInterrupt
        self._break_off()

    def _break_off(self) -> None:
        if self._reading:
            self._reading = False
            raise Stopped


class Intake:
    """Everything that a run reads passes through here once."""

    def __init__(self, seen: KnownIds, results: Results, settings: Mapping[str, Any], task: Task,
                 model: str | None) -> None:  # fmt: skip
        self._known = seen
        self._results = results
        self._settings = settings
        self._task = task
        self._model = model

    def pending(self, requests: Any,
                following: Callable[[Iterator[Entry]], Entry]) -> Iterator[Item]:  # fmt: skip
        """The items that have to be asked. `following` is next() for an iterator that may block."""
        pending = entries(requests)
        while True:
            try:
                index, line, value = following(pending)
            except StopIteration:
                return
            self._results.counts.total += 1
            item = self._read(index, line, value)
            if item is not None and not self._results.replayed(item):
                yield item

    def _read(self, index: int, line: int | None, value: Any) -> Item | None:
        try:
            if isinstance(value, InvalidInput):
                raise value
            if summary.is_line(value):
                value = summary.request(value, self._model)
            item = read_item(entry(value, self._task), index, self._settings)
        except InvalidInput as broken:
            self._results.malformed(index, line, broken, name_in(value))
            return None
        item, action = self._known.visit(item)
        return item if self._count(item, action) else None

    def _count(self, item: Item, action: Action) -> bool:
        """Whether the item is to be asked."""
        counts = self._results.counts
        if action is Action.ANSWERED:
            self._results.answered_before(item)
        elif action is Action.REPEATED:
            counts.repeated += 1
        elif action is Action.FAILED:
            counts.failed += 1
        elif action is Action.CLASH:
            self._results.failed(item, _clash(item))
        return action is Action.ASK


def _clash(item: Item) -> InvalidInput:
    return InvalidInput(
        f"id {str(item.id)[:60]!r} already stands for a request with another prompt or other settings",
        hint="give every request an id of its own; for changed requests name another output",
    )


_FIELDS = ("backend", "engine", "model")


def identity(generator: Any) -> dict[str, str]:
    """What a generator says of itself (`identity`: backend, address, model, revision, ...; never a key)."""
    capabilities = getattr(generator, "capabilities", None)
    known = {name: getattr(capabilities, name, None) for name in _FIELDS}
    own = getattr(generator, "identity", None)
    if isinstance(own, Mapping):
        known.update(own)
    return {str(name): str(value) for name, value in known.items() if value is not None}


class Job:
    """Holds what a run holds: the locked output, the table of ids, the cache, the failures."""

    def __init__(self, requests: Any, output: Any, generator: Any, options: Options) -> None:
        self._output = check(requests, output, options)
        self._stored = StoredOutput(output) if is_stored(output) else None
        self._task: Task = "generate"
        if options.distributed:
            generator = remote(generator)
        else:
            generator, self._task = adapted(generator, options.task)
            ask.check(generator)
        odd = [*sorted(options.settings.keys() - {"extra"}), *["batch"] * options.batch]
        if odd and self._task != "generate":
            raise InvalidInput(f"{odd[0]} is for text, and the task is {self._task}")
        if options.batch and not isinstance(generator, Generator):
            raise Unsupported(type(generator).__name__, "batch", "it has no batch service")
        if options.batch:
            generator.batch_service()
        if ask.batches(generator) and (options.rpm or options.tpm):
            raise InvalidInput("rpm and tpm are a provider's limits: this generator is a local engine")
        self._requests, self._generator, self._options = requests, generator, options
        self.error: BaseException | None = None
        """Why the run ended before its input did; the summary tells what was done until then."""
        self.interrupts: Interrupts | None = None

    def execute(self) -> Summary:
        """Ask for everything that has no answer yet; the output is whole and unlocked afterwards."""
        options = self._options
        named = identity(self._generator)
        each = {} if options.price else getattr(self._generator, "prices", {})
        price = dearest(each.values()) or price_of(named.get("model"), named.get("backend"), options.price)
        spending = Spending(price, options.budget, each, batch=options.batch)
        with ExitStack() as stack:
            if self._stored:
                self._stored.fetch(afresh=not options.resume)
                stack.enter_context(self._stored)
            journal = stack.enter_context(closing(Journal(self._output, afresh=not options.resume)))
            failed = stack.enter_context(closing(Failures(files.failed_beside(self._output))))
            ids = stack.enter_context(closing(KnownIds()))
            self._recover(journal, failed, ids, spending)
            cache = stack.enter_context(closing(Cache(options.cache, named))) if options.cache else None
            results, total = Results(journal, failed, cache, spending), count_requests(self._requests)
            stack.enter_context(Progress(results.counts, total, options.progress))
            if options.observed:
                seen = observers(options, results.counts, total, self._output.name, named, self._task, stack)
                results.tell = seen.tell
            intake = Intake(ids, results, options.settings, self._task, None if each else named.get("model"))
            if options.batch:
                self._by_batches(intake, results, spending)
            elif options.distributed:
                self._over_ray(intake, results, spending)
            elif ask.batches(self._generator):
                self._in_batches(intake, results, spending)
            else:
                self._over_the_wire(intake, results, spending)
            results.finish()
            self.error = self.error or journal.finish()
            summary = results.summary(self._why(), total)
        return replace(summary, output=self._stored.url) if self._stored else summary

    @property
    def output(self) -> Path:
        """The file of answers on this machine."""
        return self._output

    def _recover(self, journal: Journal, failed: Failures, ids: KnownIds,
                 spending: Spending) -> None:  # fmt: skip
        counting = self._options.budget is not None

        def answers() -> Iterator[Stamp]:
            for stamp, line in journal.recover():
                if counting:
                    spending.before(json.loads(line))
                yield stamp

        ids.load(ANSWERED, answers())
        spending.earlier(journal.owed, kept=False)
        spending.owe = journal.owe
        spending.note()
        retry = self._options.retry_failed or not self._options.resume
        failed.keep(lambda stamp: not retry and ids.state(stamp.name) is None, spending.earlier)
        ids.load(FAILED, failed.stamps())

    def _in_batches(self, intake: Intake, results: Results, spending: Spending) -> None:
        batches = LocalLoop(self._generator, results, spending, self._options)
        with Interrupts(batches.stop, most=2) as self.interrupts, suppress(Stopped):
            batches.run(intake.pending(self._requests, self.interrupts.next))
        self.error = batches.error

    def _by_batches(self, intake: Intake, results: Results, spending: Spending) -> None:
        saved = self._stored.save if self._stored else None
        ledger = Ledger(files.batches_beside(self._output), saved)
        service = BatchLoop(self._generator, results, spending, ledger)
        with Interrupts(service.stop, most=2) as self.interrupts, suppress(Stopped):
            service.run(intake.pending(self._requests, self.interrupts.next))
        self.error = self.error or service.error

    def _over_ray(self, intake: Intake, results: Results, spending: Spending) -> None:
        spread = RayLoop(self._generator, results, spending, self._options)
        with Interrupts(spread.stop, most=2) as self.interrupts, suppress(Stopped):
            spread.run(intake.pending(self._requests, self.interrupts.next))
        self.error = spread.error

    def _over_the_wire(self, intake: Intake, results: Results, spending: Spending) -> None:
        loop = AsyncLoop(self._generator, results, spending, self._options, self._nudge)
        thread = threading.Thread(target=_run, args=(loop,), name="memserve-run", daemon=True)
        with Interrupts(loop.stop, most=3) as self.interrupts:
            thread.start()
            try:
                self._feed(loop, intake.pending(self._requests, self.interrupts.next))
            finally:
                loop.queue.finish()
                thread.join()
        self.error = self.error or loop.error

    def _feed(self, loop: AsyncLoop, items: Iterator[Item]) -> None:
        """Hand everything over; what the caller's own iterable raises stops the run and comes out of it."""
        try:
            for item in items:
                if not loop.queue.put(item):
                    return
        except Stopped:
            pass
        except Exception as broken:
            self.error = broken
            if isinstance(broken, MemserveError):
                loop.stop()

    def _nudge(self) -> None:
        if self.interrupts:
            self.interrupts.nudge()

    def _why(self) -> str | None:
        if self.interrupts and self.interrupts.caught:
            return "interrupted"
        return str(self.error) if self.error else None


def check(requests: Any, output: Any, options: Options, lines: Path | None = None) -> Path:
    """The output's path; whatever the files do not allow is refused before an engine is opened."""
    if not isinstance(output, (str, Path)) or str(output) in ("", "-") or Path(output).is_dir():
        raise InvalidInput(f"the output must be the path of a .jsonl file, not {str(output)[:80]!r}")
    path = StoredOutput(output).path if is_stored(output) else files.local(output, "the output")
    files.distinct(requests, path, cache=options.cache, page=options.page, lines=lines)
    check_requests(requests)
    files.refuse_foreign(files.failed_beside(path), results.is_ours)
    files.refuse_foreign(files.reserve_beside(path), is_reserve)
    for beside, is_ours in ((options.page, report.is_ours), (lines, summary.is_ours)):
        if beside is not None:
            files.refuse_foreign(beside, is_ours)
    return path


def _run(loop: AsyncLoop) -> None:
    """In a thread, where an exception would only be printed."""
    try:
        asyncio.run(loop.run())
    except BaseException as broken:
        loop.error = loop.error or broken
        loop.queue.close()
