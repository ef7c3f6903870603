"""What is seen of a run from outside while it goes on: a page, metrics as text, a hook for trackers."""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from memserve.errors import InvalidInput
from memserve.files import write as whole
from memserve.protocol import Completion
from memserve.run.options import Log, Options
from memserve.run.requests import Item
from memserve.run.store import files
from memserve.run.store.results import Counts

SECONDS = 15.0
"""Between two pages, and between two rows of a tracker."""
EDGES = tuple(round(base * 10**power, 3) for power in range(-2, 4) for base in (1, 2, 5))
"""Upper ends of the histogram's buckets, seconds; longer answers are in one more."""
MOST_MARKS = 240
_log = logging.getLogger("memserve.run")


class Observer(Protocol):
    """Hears of every outcome, from whichever thread it comes."""

    def answered(self, item: Item, completion: Completion, seconds: float) -> None:
        """An answer is in the journal."""

    def failed(self, error: BaseException) -> None:
        """A request has no answer, and its row is in the file of failures."""

    def ended(self) -> None:
        """Nothing follows; the counts are those of the summary."""


class Observers:
    """All of a run's. One that raises is left out from then on: it never costs an answer."""

    def __init__(self, each: Sequence[Observer] = ()) -> None:
        self._each = list(each)

    def tell(self, what: str, *values: Any) -> None:
        """Call this method of each."""
        for one in tuple(self._each):
            self._tell(one, what, values)

    def _tell(self, one: Observer, what: str, values: Sequence[Any]) -> None:
        try:
            getattr(one, what)(*values)
        except Exception as broken:
            with suppress(ValueError):  # another thread was first
                self._each.remove(one)
            _log.warning("%s no longer follows the run: %s", type(one).__name__, broken)


class Tally:
    """The figures that a page and the metrics show, in a size that no run makes larger."""

    def __init__(self, counts: Counts, total: int | None = None) -> None:
        self.counts = counts
        self.total = total
        self.began = time.time()
        self.over = False
        self.histogram = [0] * (len(EDGES) + 1)
        self.seconds = 0.0
        self.errors: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.marks: list[tuple[float, int, int]] = [(0.0, 0, 0)]
        """Seconds since the beginning, answers, answer tokens."""
        self._apart = 1.0
        self._guard = threading.Lock()

    def answered(self, item: Item, completion: Completion, seconds: float) -> None:
        """Count one answer."""
        with self._guard:
            self.histogram[bisect_left(EDGES, seconds)] += 1
            self.seconds += seconds
            self.finished[completion.finish_reason or "unknown"] += 1
            self._mark()

    def failed(self, error: BaseException) -> None:
        """Count one failure by its kind."""
        with self._guard:
            self.errors[type(error).__name__] += 1

    def ended(self) -> None:
        """The last mark."""
        with self._guard:
            self._apart = 0.0
            self._mark()
            self.over = True

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.time() - self.began

    def quantile(self, share: float) -> float | None:
        """The upper end of the bucket that holds this share of the answers."""
        wanted, seen = share * sum(self.histogram), 0
        ends: tuple[float, ...] = (*EDGES, float("inf"))
        for edge, count in zip(ends, self.histogram, strict=True):
            seen += count
            if seen and seen >= wanted:
                return edge
        return None

    def _mark(self) -> None:
        now = self.elapsed
        if now - self.marks[-1][0] >= self._apart:
            self.marks.append((now, self.counts.done, self.counts.completion_tokens))
        if len(self.marks) > MOST_MARKS:
            self.marks = self.marks[::2]
            self._apart *= 2

    def figures(self) -> dict[str, float]:
        """Every count by its name."""
        found = {name: float(value) for name, value in vars(self.counts).items() if value is not None}
        rate = self.counts.completion_tokens / self.elapsed if self.elapsed else 0.0
        return {**found, "tokens_per_s": rate, "seconds": self.elapsed}

    def metrics(self) -> str:
        """Prometheus' text form."""
        lines = []
        for name, value in self.figures().items():
            kind = "gauge" if name in {"seconds", "tokens_per_s", "total"} else "counter"
            full = f"memserve_run_{name}" + ("_total" if kind == "counter" else "")
            lines += [f"# TYPE {full} {kind}", f"{full} {value:.10g}"]
        lines.append("# TYPE memserve_run_answer_seconds histogram")
        reached = 0
        for edge, count in zip((*EDGES, "+Inf"), self.histogram, strict=True):
            reached += count
            lines.append(f'memserve_run_answer_seconds_bucket{{le="{edge}"}} {reached}')
        lines += [
            f"memserve_run_answer_seconds_sum {self.seconds:.10g}",
            f"memserve_run_answer_seconds_count {reached}",
        ]
        return "\n".join(lines) + "\n"


class Every:
    """Does something at most every so many seconds, and once more at the end."""

    def __init__(self, work: Callable[[], Any], seconds: float = SECONDS) -> None:
        self._work, self._seconds = work, seconds
        self._next = time.monotonic() + min(seconds, 1.0)
        self._guard = threading.Lock()

    def answered(self, item: Item, completion: Completion, seconds: float) -> None:
        """Whether it is time."""
        self._look()

    def failed(self, error: BaseException) -> None:
        """Whether it is time."""
        self._look()

    def ended(self) -> None:
        """Once more."""
        with self._guard:
            self._work()

    def _look(self) -> None:
        if time.monotonic() < self._next or not self._guard.acquire(blocking=False):
            return
        try:
            if time.monotonic() >= self._next:  # nobody else has just done it
                self._work()
                self._next = time.monotonic() + self._seconds
        finally:
            self._guard.release()


def observers(options: Options, counts: Counts, total: int | None, title: str, named: Mapping[str, str],
              task: str, stack: ExitStack) -> Observers:  # fmt: skip
    """Those that were asked for; they hear of the end however the run ends."""
    tally = Tally(counts, total)
    each: list[Observer] = [tally]
    if options.telemetry:
        from memserve.run.telemetry import Telemetry

        each.append(Telemetry(named, task))
    if options.page is not None:
        each.append(page(tally, options.page, title))
    if options.log is not None:
        each.append(tracker(tally, options.log))
    if options.watch is not None:
        stack.enter_context(Watch(tally, options.watch, title))
    seen = Observers(each)
    stack.callback(seen.tell, "ended")
    return seen


def page(tally: Tally, path: Path, title: str) -> Every:
    """Writes the run's page: at the beginning, every quarter of a minute, and at the end."""
    from memserve.run.report import html, is_ours

    for one in (path, Path(f"{path}.new")):
        files.refuse_foreign(one, is_ours)

    def write() -> None:
        whole(path, html(tally, title))

    try:
        write()
    except OSError as broken:
        raise InvalidInput(f"{path} cannot be written: {broken.strerror}") from None
    return Every(write)


def tracker(tally: Tally, log: Log) -> Every:
    """Rows for a tracker of experiments."""
    return Every(lambda: log(tally.figures(), step=tally.counts.settled))


class Watch:
    """The page and the metrics on a port of this machine while the run goes on."""

    def __init__(self, tally: Tally, port: int, title: str) -> None:
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

        from memserve.run.report import html

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, said, status = "text/plain", "/ and /metrics are here\n", 404
                if self.path == "/":
                    kind, said, status = "text/html", html(tally, title), 200
                elif self.path == "/metrics":
                    kind, said, status = "text/plain; version=0.0.4", tally.metrics(), 200
                body = said.encode()
                self.send_response(status)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_words: object) -> None:
                pass

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as broken:
            raise InvalidInput(f"port {port} cannot be watched: {broken}", hint="name another") from None
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        _log.warning("the run is shown at %s and %smetrics", self.url, self.url)

    def __enter__(self) -> Watch:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
