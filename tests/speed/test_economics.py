"""Each sum that users quote, from the command that prints it."""

from __future__ import annotations

import pytest

from memserve.speed import economics
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
    found = next(one for one in economics.sums() if part in one.what)
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
