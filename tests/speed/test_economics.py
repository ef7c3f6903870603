"""Each sum that users quote, from the command that prints it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from memserve.speed import cost
from memserve.speed.__main__ import main


@pytest.mark.parametrize(
    ("part", "usd"),
    [
        ("dense bf16 989", 0.9205), ("dense fp8 1979", 0.4600), ("sparsity 3958", 0.2300),
        ("on demand, dense", 1.2882),
        ("a human", 2666.6667), ("1,000 samples", 27.5), ("on that API", 0.0275), ("server, 4000", 0.0245),
        ("server, 6000", 0.0163),
    ],
)  # fmt: skip
def test_the_sums(part, usd):
    found = next(one for one in cost.sums() if part in one.what)
    assert found.usd == pytest.approx(usd, abs=5e-5)


def test_the_command_prints_both_currencies(capsys):
    words = ["economics", "--cny-per-usd", "7", "--purchase-usd", "300000", "--usd-per-kwh", "0.1"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "0.9205 $/Mtok" in text and "6.4438 CNY/Mtok" in text
    assert "sparse FP8 peak" in text
    assert "owned for 300,000 $" in text
    assert "busy hours" in text


def test_nothing_is_owned_unless_the_caller_states_a_price(capsys):
    assert main(["economics"]) == 0
    assert "owned" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [("--cny-per-usd", "0"), ("--years", "x"), ("--purchase-usd", "9", "--years", "nan"), ("--nonsense",)],
)
def test_an_impossible_rate_is_one_line(words, capsys):
    assert main(["economics", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert len(said) <= 301


def test_the_inputs_are_the_callers(capsys):
    words = ["economics", "--active", "200e9", "--mfu", "0.3", "--server", "39.33", "--api", "3/15"]
    assert main([*words, "--samples", "10000", "--purchase-usd", "300000"]) == 0
    text = capsys.readouterr().out
    assert "200 B active, 8 cards at 39.33 $/h" in text and "1.8411 $/Mtok" in text
    for word in ("markup", "samples/h", "is paid after"):
        assert word in text


@pytest.mark.parametrize("seed", range(60))
def test_where_a_server_and_an_api_are_even(seed):
    """At the break-even rate both cost the same an hour; the markup is a sample there over one here."""
    draw = random.Random(seed)
    stated = cost.Stated(
        server=draw.uniform(1, 200), active=draw.uniform(1e9, 1e12), mfu=draw.uniform(0.05, 0.6),
        cards=draw.choice([1, 4, 8, 16]), peak_tflops=draw.uniform(100, 4000),
        api=(draw.uniform(0.01, 20), draw.uniform(0.01, 80)),
        sample=(draw.randint(1, 10**5), draw.randint(1, 10**4)), samples=draw.randint(1, 10**7),
    )  # fmt: skip
    found = {one.unit: one.usd for one in stated.sums(purchase_usd=1e5)}
    assert found["samples/h"] * found["$/sample"] == pytest.approx(stated.server)
    assert found["samples"] * found["$/sample"] == pytest.approx(1e5)
    here = found["$/Mtok"] * sum(stated.sample) / 1e6
    assert found["x"] == pytest.approx(found["$/sample"] / here)
    dearer = replace(stated, server=stated.server * 2)
    assert dearer.usd_per_mtok == pytest.approx(2 * stated.usd_per_mtok)


@pytest.mark.parametrize(
    "words", [("--api", "nothing"), ("--api", "3"), ("--sample", "8/9"), ("--mfu", "30")]
)
def test_what_is_no_price_and_no_sample_is_refused(words, capsys):
    assert main(["economics", "--server", "10", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
