"""OpenTelemetry's spans and metrics of a run, by its conventions for generative AI; no text leaves with them.

Needs memserve[telemetry]. Where the program has set up a provider of its own, that one is used; else the
usual OTEL_ variables say where to send.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from memserve.errors import InvalidInput
from memserve.missing import install_line
from memserve.protocol import Completion
from memserve.run.requests import Item

_OPERATIONS = {"generate": "chat", "embed": "embeddings", "rerank": "rerank", "score": "text_completion"}


class Telemetry:
    """One span an answer or a failure; the time it took and its tokens as histograms."""

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
