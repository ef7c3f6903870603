"""Workloads: what they ask for, and what they take on machines and providers."""

from __future__ import annotations

import json
import random

import pytest

from memserve.errors import InvalidInput, UnknownName
from memserve.hardware import parse
from memserve.model import load
from memserve.speed import prices, workloads

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def test_known_workloads_say_where_their_numbers_are_from():
    assert set(workloads.names()) == {"longmemeval-s", "longmemeval-m", "locomo"}
    assert all(workloads.find(name).source for name in workloads.names())
    small = workloads.find("longmemeval-s")
    assert (small.requests, small.prompt_tokens) == (500, 115_000)


def test_sized_workloads():
    found = workloads.find("1000:200:5_000")
    assert (found.prompt_tokens, found.output_tokens, found.requests) == (1000, 200, 5000)
    for word in ("0:0:5", "1:2", "1:2:0", "1:2:0.5", "nothing"):
        with pytest.raises((InvalidInput, UnknownName)):
            workloads.find(word)


def test_a_file_of_requests(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [{"prompt": "x" * 400, "max_tokens": 10}, {"prompt": [1] * 300, "output_tokens": 30}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    found = workloads.find(str(path))
    assert (found.requests, found.input_tokens, found.output_tokens) == (2, 200, 20)
    path.write_text("not json")
    with pytest.raises(InvalidInput, match="mine"):
        workloads.find(str(path))


def test_a_shared_history_is_read_once():
    work = workloads.find("locomo")
    machine = parse("1xA100")
    model = load(LLAMA)
    cached = workloads.assess(work, model, machine, backend="vllm", usd_per_hour=2.0)
    bare = workloads.assess(work, model, machine, backend="vllm", usd_per_hour=2.0, prefix_cache=False)
    assert cached.seconds[1] < bare.seconds[1] / 3
    assert cached.usd is not None
    assert cached.usd[1] == pytest.approx(2.0 * cached.hours)
    assert cached.gpu_hours == pytest.approx(cached.hours)
    assert cached.kwh == pytest.approx(0.4 * cached.hours)


def test_a_machine_without_a_price_costs_nothing_known():
    found = workloads.assess(workloads.find("500:100:100"), load(LLAMA), parse("8x910B2"), backend="ascend")
    assert found.usd is None
    assert workloads.within_budget(found, 1e9) is None
    assert workloads.affordable_requests(found, 10) is None


def test_providers_by_token_price_cache_and_batch():
    price = prices.of("openai:gpt-4o-mini")
    assert price is not None
    work = workloads.Workload("w", 100, 1000, 100, prefix_tokens=9000, shared=100)
    plain = workloads.ask(workloads.Workload("w", 100, 10_000, 100), price)
    cached, batch = workloads.ask(work, price), workloads.ask(work, price, batch=True)
    assert plain.usd is not None
    assert cached.usd is not None
    assert batch.usd is not None
    assert plain.usd[1] == pytest.approx(1.0 * 0.15 + 0.01 * 0.6)
    hits = 100 * 9000 * 0.99 / 1e6
    assert cached.usd[1] == pytest.approx((1.0 - hits) * 0.15 + hits * 0.075 + 0.01 * 0.6)
    assert batch.usd[1] == pytest.approx(plain.usd[1] / 2)
    assert batch.seconds[2] >= 24 * 3600


@pytest.mark.parametrize("seed", range(50))
def test_a_providers_hours_follow_from_its_limits_or_are_assumed(seed):
    draw = random.Random(seed)
    price = prices.of(draw.choice(prices.names()))
    sizes = [draw.randint(1, 5000) for _ in range(3)]
    work = workloads.Workload(
        "w", sizes[0], sizes[1], sizes[2], draw.choice([0, 9000]), draw.choice([1, 200])
    )
    rpm, tpm = (draw.choice([None, draw.randint(1, 10**6)]) for _ in range(2))
    found = workloads.ask(work, price, requests_per_minute=rpm, tokens_per_minute=tpm)
    bounds = [work.requests / rpm] if rpm else []
    bounds += [(work.total_prompt + work.total_output) / tpm] if tpm else []
    if bounds:
        assert found.seconds[1] == pytest.approx(60 * max(bounds)) and found.seconds[0] == found.seconds[1]
        assert found.assumptions == ()
    else:
        assert {one.name for one in found.assumptions} == {"seconds_per_request", "concurrency"}
        assert all("--rpm" in one.source for one in found.assumptions)


@pytest.mark.parametrize("name", prices.names())
def test_a_shared_prefix_costs_what_a_run_pays_for_it(name):
    """Where the provider caches unasked, or where a run marks it: then it is written once, and read."""
    price = prices.of(name)
    work = workloads.Workload("w", 100, 10, 10, prefix_tokens=9000, shared=100)
    found = workloads.ask(work, price)
    full = price.of_tokens(work.total_prompt, work.total_output)
    marked = price.marked_from is not None
    cached = price.cached is not None and (marked or price.caches_from is not None)
    assert (found.usd[1] < full) == cached
    if marked:
        write = 9000 * (price.cache_write - price.input)
        assert found.usd[1] == pytest.approx(full + (write - 99 * 9000 * (price.input - price.cached)) / 1e6)
    assert any("marks the shared prefix" in note for note in found.notes) == marked


def test_deadlines_and_budgets():
    work = workloads.find("1000:200:20000")
    found = workloads.assess(work, load(LLAMA), parse("1xL4"), backend="vllm", usd_per_hour=0.8)
    assert found.usd is not None
    count = workloads.machines_until(found, found.seconds[1] / 3.5)
    assert count == 4
    assert workloads.within_deadline(found, found.seconds[2]) is True
    assert workloads.within_deadline(found, found.seconds[1]) is None
    assert workloads.within_deadline(found, found.seconds[0] / 2) is False
    assert workloads.within_budget(found, found.usd[2]) is True
    assert workloads.affordable_requests(found, found.usd[1] / 2) == pytest.approx(10_000, abs=1)
    with pytest.raises(InvalidInput):
        workloads.machines_until(found, 0)


@pytest.mark.parametrize(
    ("word", "seconds"), [("12h", 43200), ("90m", 5400), ("1h30m", 5400), ("2d", 172800), ("45", 45)]
)
def test_times_as_people_write_them(word, seconds):
    assert workloads.seconds_of(word) == seconds


@pytest.mark.parametrize("word", ["", "soon", "-3h", "0h", "3w"])
def test_malformed_times_are_refused(word):
    with pytest.raises(InvalidInput):
        workloads.seconds_of(word)


@pytest.mark.parametrize(
    "line",
    ['{"prompt": "x", "max_tokens": "many"}', '{"prompt": "x", "max_tokens": -5}', '{"prompt": null}', "{}",
     '{"prompt": "x", "input_tokens": NaN}', '{"prompt": "x", "input_tokens": 1e999}', '{"prompt": 5}',
     '{"prompt":'],
)  # fmt: skip
def test_a_file_with_an_impossible_request_says_which(tmp_path, line):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "fine"}\n\n' + line + "\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"mine\.jsonl, line 3"):
        workloads.find(str(path))


def test_names_ignore_case():
    assert workloads.find("LoCoMo") == workloads.find("locomo")
