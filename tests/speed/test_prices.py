"""Token prices: what a call costs, and that the table says when and from where."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from memserve.errors import InvalidInput
from memserve.protocol import Usage
from memserve.speed import prices, workloads


@pytest.mark.parametrize(
    "name", ["gpt-4o-mini", "openai:gpt-4o-mini", "openai/gpt-4o-mini", "gpt-4o-mini-2024-07-18"]
)
def test_one_model_by_each_of_its_names(name):
    price = prices.of(name)
    assert price is not None
    assert (price.input, price.output, price.cached, price.batch_input) == (0.15, 0.6, 0.075, 0.075)


def test_every_row_says_when_and_from_where():
    rows = [prices.of(name) for name in prices.names()]
    assert len(rows) >= 30
    assert all(row and row.source and row.date == prices.stamp() for row in rows)


def test_unknown_models_have_no_price():
    assert prices.of("pangu-38b") is None
    assert prices.of("a-model-nobody-sells", "openai") is None


def test_the_cache_and_the_batch_are_cheaper():
    price = prices.of("gpt-4o", "openai")
    assert price is not None
    assert price.usd(Usage(1_000_000, 0)) == 2.5
    assert price.usd(Usage(1_000_000, 0, 1_000_000)) == 1.25
    assert price.usd(Usage(1_000_000, 1_000_000), batch=True) == 6.25
    assert price.usd(Usage()) == 0


def test_wrong_counts_and_missing_batch_prices_are_refused():
    price = prices.of("text-embedding-ada-002")
    assert price is not None
    with pytest.raises(InvalidInput, match="batch"):
        price.usd(Usage(5, 0), batch=True)
    with pytest.raises(InvalidInput, match="cached"):
        price.usd(Usage(5, 0, 6))


@pytest.mark.parametrize(
    ("name", "usd"),
    [("openai:gpt-3.5-turbo", 0.5), ("gpt-4-turbo", 10), ("gpt-4", 30), ("o1", 15), ("gemini-1.5-pro", 1.25),
     ("anthropic:claude-3-opus", 15), ("claude-3-haiku", 0.25), ("bedrock:claude-3-5-sonnet", 3),
     ("anthropic:claude-3-5-sonnet-latest", 3), ("anthropic:claude-sonnet-4", 3), ("claude-haiku-4-5", 1)],
)  # fmt: skip
def test_models_that_papers_name(name, usd):
    price = prices.of(name)
    assert price is not None and price.input == usd


ORACLES = "genai-prices comes with the extra oracles"
LONG = [name for name in prices.names() if prices.of(name).long]


@pytest.mark.parametrize("name", LONG)
def test_a_long_prompt_costs_more_and_all_of_it(name):
    price, above = prices.of(name), dict(prices.of(name).long)["above"]
    for tokens, dear in ((above, False), (above + 1, True)):
        one = Usage(prompt_tokens=tokens, completion_tokens=1000)
        usual = price.of_tokens(tokens, 1000)
        assert (price.usd(one) > usual * 1.4) == dear
        work = workloads.Workload("w", 100, tokens, 1000)
        assert workloads.ask(work, price).usd[1] == pytest.approx(100 * price.usd(one))
    assert len(LONG) >= 5 and price.of_prompt(above) is price


def test_a_price_is_the_same_by_day_and_by_night(monkeypatch):
    pytest.importorskip("genai_prices", reason=ORACLES)
    found = []
    for hour in (1, 12, 18, 23):

        class Moment(datetime):
            @classmethod
            def now(cls, zone=None, hour=hour):
                return cls(2026, 11, 30, hour, 15, tzinfo=zone)

        monkeypatch.setattr("datetime.datetime", Moment)
        found.append(prices.figures("deepseek", "deepseek-reasoner", {}))
    assert found[0] and all(one == found[0] for one in found)


@pytest.mark.parametrize(
    "name", ["azure:gpt-4o", "groq:llama-3.3-70b-versatile", "openrouter:qwen/qwen3-32b"]
)
def test_a_provider_without_rows_is_found_where_genai_prices_is(name):
    pytest.importorskip("genai_prices", reason=ORACLES)
    assert prices.of(name).provider == name.partition(":")[0]
    assert prices.of(f"nobody:{name.partition(':')[2]}") is None


def test_every_release_is_found_by_its_everyday_name():
    """The newest release of a model is what its bare name means, and no other model's."""
    dated = re.compile(r"(?:(?:us\.)?anthropic\.)?(.+?)-(20\d{6}|20\d\d-\d\d-\d\d)(?:-v\d+:\d+)?")
    releases = {}
    for name in prices.names():
        provider, _, model = name.partition(":")
        if match := dated.fullmatch(model):
            releases.setdefault((provider, match[1]), []).append((match[2], model))
    assert len(releases) >= 15
    for (provider, bare), found in releases.items():
        price = prices.of(f"{provider}:{bare}")
        assert price is not None and price.model in {bare, max(found)[1]}
