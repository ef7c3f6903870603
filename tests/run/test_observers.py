"""What is seen of a run from outside: its page, its metrics, a tracker's rows, OpenTelemetry's spans."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from urllib.request import ProxyHandler, build_opener

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memserve
from memserve.errors import InvalidInput, ServerFailed
from memserve.protocol import Completion
from memserve.run.observers import EDGES, MOST_MARKS, Tally, Watch
from memserve.run.store.results import Counts

VOID = {"meta", "rect", "polyline"}


@pytest.fixture
def finished(fake, tmp_path):
    def run(output="a.jsonl", **options):
        broken = {"p3": [InvalidInput("no")], "p7": [InvalidInput("no")]}
        prompts = [f"p{number}" for number in range(20)]
        return memserve.run.run(prompts, tmp_path / output, generator=fake(broken), **options)

    return run


class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.said = []
        self.links = []

    def handle_data(self, data):
        self.said.append(data)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in {"src", "href"}]


def text(page):
    reader = Text()
    reader.feed(page)
    assert not reader.links, "the page asks for something outside itself"
    return " ".join(reader.said)


def test_the_page_tells_what_the_summary_tells(finished, tmp_path):
    summary = finished(page=tmp_path / "run.html", price=(1, 2))
    said = text((tmp_path / "run.html").read_text())
    for words in (
        "ended", "20 of 20", f"answered by this run {summary.done}", f"failed {summary.failed}",
        f"answer tokens {summary.completion_tokens}", f"{summary.usd:.4f} $", "stop 18", "InvalidInput 2",
    ):  # fmt: skip
        assert words in said, words
    assert "refresh" not in (tmp_path / "run.html").read_text()


def test_a_page_is_written_over_its_own_kind_only(finished, tmp_path):
    finished(page=tmp_path / "run.html")
    finished(page=tmp_path / "run.html")
    (tmp_path / "mine.html").write_text("<!doctype html><p>mine")
    with pytest.raises(InvalidInput, match=r"mine\.html"):
        finished(page=tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text().endswith("mine")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>.jsonl", "a&b.jsonl"])
def test_a_name_is_no_markup(finished, tmp_path, name):
    finished(name.replace("/", "_"), page=tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert "<script" not in page
    assert name.replace("/", "_") in text(page)


def test_a_tracker_gets_the_last_figures(finished):
    rows = []
    summary = finished(log=lambda values, step: rows.append((values, step)))
    values, step = rows[-1]
    assert step == 20
    assert (values["done"], values["failed"], values["completion_tokens"]) == (
        summary.done, summary.failed, summary.completion_tokens,
    )  # fmt: skip


def test_one_that_fails_costs_no_answer(finished, tmp_path, caplog):
    def log(values, step):
        raise ServerFailed("the tracker is down")

    assert finished(log=log, page=tmp_path / "run.html").done == 18
    assert "the tracker is down" in caplog.text
    assert "20 of 20" in text((tmp_path / "run.html").read_text())


def test_metrics_and_the_page_on_a_port():
    tally = Tally(Counts(total=3, done=2, failed=1, completion_tokens=9), 3)
    for seconds in (0.3, 4.0):
        tally.answered(None, Completion(text="x", finish_reason="stop"), seconds)
    get = build_opener(ProxyHandler({})).open
    with Watch(tally, 0, "a.jsonl") as shown:
        metrics = get(shown.url + "metrics").read().decode()
        assert "running" in text(get(shown.url).read().decode())
        with pytest.raises(InvalidInput, match="port"):
            Watch(tally, int(shown.url.rstrip("/").rpartition(":")[2]), "b")
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert values["memserve_run_done_total"] == "2"
    assert values["memserve_run_failed_total"] == "1"
    assert values['memserve_run_answer_seconds_bucket{le="0.5"}'] == "1"
    assert (
        values['memserve_run_answer_seconds_bucket{le="+Inf"}'] == values["memserve_run_answer_seconds_count"]
    )
    assert all(re.fullmatch(r'[a-z_]+(\{le="[^"]+"\})?', name) for name in values)


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=60), st.floats(0.01, 1))
def test_a_quantile_is_the_end_of_its_bucket(seconds, share):
    tally = Tally(Counts())
    for one in seconds:
        tally.answered(None, Completion(text=""), one)
    found = tally.quantile(share)
    within = sum(one <= found for one in seconds)
    assert within >= share * len(seconds) - 1e-9
    assert found in (*EDGES, float("inf"))


def test_a_night_makes_the_page_no_larger(monkeypatch):
    tally, now = Tally(Counts()), 0.0
    tally.began = 0.0
    monkeypatch.setattr("memserve.run.observers.time.time", lambda: now)
    for _ in range(20_000):
        now += random.Random(now).uniform(0.1, 3)
        tally.counts.done += 1
        tally.answered(None, Completion(text=""), 1.0)
    assert len(tally.marks) <= MOST_MARKS + 1
    tally.ended()
    assert tally.marks[-1][1] == 20_000
    assert tally.marks == sorted(tally.marks)


@pytest.mark.slow
def test_spans_and_histograms_of_opentelemetry(tmp_path):
    """With the program's own provider, in a process of its own: providers are set once."""
    import subprocess
    import sys

    program = f"""
import json
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import sys
sys.path.insert(0, {str(tmp_path.parent)!r})
spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider(); provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider); metrics.set_meter_provider(MeterProvider([reader]))
import memserve
from memserve.protocol import Capabilities, Completion, Usage
from memserve.errors import InvalidInput
class Engine:
    capabilities = Capabilities(backend="fake", model="m")
    async def agenerate(self, prompt, **settings):
        if prompt == "secret 3":
            raise InvalidInput("no")
        return Completion(text="said", finish_reason="stop", usage=Usage(7, 5), model="m-1")
prompts = [f"secret {{n}}" for n in range(9)]
memserve.run.run(prompts, {str(tmp_path / "a.jsonl")!r}, generator=Engine(), telemetry=True)
points = {{}}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            for point in metric.data.data_points:
                kind = point.attributes.get("gen_ai.token.type", "")
                points[metric.name + "/" + kind] = [point.count, point.sum]
print(json.dumps([[json.loads(span.to_json()) for span in spans.get_finished_spans()], points]))
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    spans, points = json.loads(told)
    assert "secret" not in told, "a prompt left the machine"
    assert len(spans) == 9
    good = [span for span in spans if "error.type" not in span["attributes"]]
    assert len(good) == 8
    assert {span["name"] for span in spans} == {"chat m"}
    assert good[0]["attributes"]["gen_ai.usage.input_tokens"] == 7
    assert good[0]["attributes"]["gen_ai.response.model"] == "m-1"
    assert points["gen_ai.client.token.usage/output"] == [8, 40]
    assert points["gen_ai.client.operation.duration/"][0] == 8
