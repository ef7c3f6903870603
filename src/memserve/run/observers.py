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
from memserve.missing import install_line
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

    write()
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


_OPERATIONS = {"generate": "chat", "embed": "embeddings", "rerank": "rerank", "score": "text_completion"}


class Telemetry:
    """OpenTelemetry by its conventions for generative AI: a span an answer or a failure, its time and tokens
    as histograms, never a text. A provider that the program has set up is used."""

    def __init__(self, named: Mapping[str, str], task: str) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError:
            raise InvalidInput("telemetry needs OpenTelemetry", hint=install_line("telemetry")) from None
        _provide(trace, metrics)
        self._sent = trace.get_tracer_provider(), metrics.get_meter_provider()
        self._tracer = trace.get_tracer("memserve")
        self._error = trace.StatusCode.ERROR
        meter = metrics.get_meter("memserve")
        self._duration = meter.create_histogram("gen_ai.client.operation.duration", unit="s")
        self._tokens = meter.create_histogram("gen_ai.client.token.usage", unit="{token}")
        self._operation = _OPERATIONS[task]
        self._common = {
            "gen_ai.operation.name": self._operation,
            "gen_ai.provider.name": named.get("backend", "unknown"),
            "gen_ai.request.model": named.get("model", "unknown"),
        }

    def answered(self, item: Item, completion: Completion, seconds: float) -> None:
        """A span that ends now and began so many seconds ago."""
        usage = completion.usage
        told = {
            "gen_ai.response.model": completion.model, "gen_ai.response.id": completion.request_id,
            "gen_ai.response.finish_reasons": [str(completion.finish_reason)],
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "memserve.request.id": str(item.id), "memserve.by": completion.by,
        }  # fmt: skip
        self._span(seconds, {name: value for name, value in told.items() if value is not None}).end()
        self._duration.record(seconds, self._common)
        for kind, count in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
            if count is not None:
                self._tokens.record(count, {**self._common, "gen_ai.token.type": kind})

    def failed(self, error: BaseException) -> None:
        """A span of no length: how long its attempts took is not known here."""
        span = self._span(0.0, {"error.type": type(error).__name__})
        span.set_status(self._error)  # its words may quote the prompt
        span.end()

    def ended(self) -> None:
        """Send what has not been sent."""
        for one in self._sent:  # never shut down: the program's next run sends by them, too
            if flush := getattr(one, "force_flush", None):
                flush()

    def _span(self, seconds: float, told: Mapping[str, Any]) -> Any:
        begun = time.time_ns() - int(seconds * 1e9)
        name = f"{self._operation} {self._common['gen_ai.request.model']}"
        attributes = {**self._common, **told}
        from opentelemetry.trace import SpanKind

        return self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, start_time=begun)


def _provide(trace: Any, metrics: Any) -> None:
    """Set providers up where the program has none."""
    if type(trace.get_tracer_provider()).__name__ != "ProxyTracerProvider":
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise InvalidInput(
            "no OpenTelemetry provider is set up, and there is none to set up",
            hint=install_line("telemetry"),
        ) from None
    spans = TracerProvider()
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(spans)
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))
