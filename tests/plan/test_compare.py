"""`--compare`: machines and providers for one workload, in one table and one chart."""

from __future__ import annotations

import json

import pytest
from extras import need

from memserve.errors import InvalidInput
from memserve.plan.__main__ import main
from memserve.plan.tasks.comparing import compare

WORDS = ("--compare", "4xV100", "1xH100", "8x910B4", "openai:gpt-4o-mini", "--workload", "locomo")


@pytest.mark.slow
def test_the_table_and_the_chart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--deadline", "12h", "--budget", "200"]) == 0
    text = capsys.readouterr().out
    table, chart = text.split("\n\n")
    assert "no MODEL was named" in table
    for word in (
        "A  4xV100",
        "B  1xH100",
        "C  8x910B4",
        "D  openai:gpt-4o-mini",
        "no price known",
        "in time: yes",
    ):
        assert word in table
    assert all(letter in chart for letter in "ABD")
    assert "C" not in chart


def test_json_has_every_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llama-70b", *WORDS, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["compare"]
    assert [row["name"] for row in found] == list(WORDS[1:5])
    hours = {row["name"]: row["workload"]["hours"]["likely"] for row in found if row["fits"]}
    assert hours["1xH100"] > 0 and found[3]["workload"]["usd"]["likely"] > 0


def test_what_does_not_fit_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["meta-llama/Llama-3.1-405B", "--compare", "1xT4", "--workload", "1000:100:10"]) == 1
    text = capsys.readouterr().out
    assert "nothing fits" in text and "no chart" in text


@pytest.mark.parametrize(
    "words", [("--compare", "1xH100"), ("--compare", "1xNOPE", "--workload", "locomo"), ("--compare",),
              ("--compare", "openai:nonesuch", "--workload", "locomo"),
              ("--compare", "1xH100@free", "--workload", "locomo"),
              ("--compare", "pangu:pangu-38b@1", "--workload", "locomo")],
)  # fmt: skip
def test_malformed_calls_are_one_line(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(list(words)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and len(error) <= 301


def test_prices_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["8x910B4@12.5", "pangu:pangu-38b@0.5/1.5", "--workload", "locomo", "--json"]
    assert main(["--compare", *words]) == 0
    machine, provider = json.loads(capsys.readouterr().out)["compare"]
    hours, usd = machine["workload"]["hours"]["likely"], machine["workload"]["usd"]["likely"]
    assert usd == pytest.approx(hours * 12.5, rel=1e-2) and provider["workload"]["usd"]["likely"] > 0


def test_nothing_is_compared_with_nothing() -> None:
    with pytest.raises(InvalidInput, match="a machine or a provider"):
        compare("llama-8b", [], workload="locomo")


def test_a_provider_takes_no_longer_prompts_than_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--compare", "openai:gpt-4o-mini", "--workload", "longmemeval-m"]) == 1
    assert "128,000 tokens at most" in capsys.readouterr().out


def test_no_provider_keeps_to_a_time_and_no_bound_contradicts_its_range(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--compare", "4xV100", "openai:gpt-4o-mini", "--workload", "locomo", "--ttft", "60000"]
    assert main(["llama-70b", *words]) == 0
    out = capsys.readouterr().out
    assert "never timed on such a card" in out and "at most" not in out and "no provider states" in out
    assert main(["llama-70b", "--gpus", "4xV100"]) == 0
    assert "; never timed on such a card) at 1 at once" in capsys.readouterr().out


def test_a_moment_is_a_deadline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, "--deadline", "tomorrow 9:00", "--budget", "200"]) == 0
    assert "in time: " in capsys.readouterr().out


def test_a_budget_without_a_price_is_not_perhaps_kept(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["llama-8b", "--workload", "1000:100:1000", "--budget", "0.01"]
    for gpus, said in (("1xRTX3090", "no price is known"), ("1xRTX3090@9", "beyond the budget")):
        assert main([*words, "--gpus", gpus]) == 0
        page = capsys.readouterr().out
        assert said in page and "perhaps" not in page
    assert main([*words, "--compare", "1xRTX3090"]) == 0
    assert "in budget: no price is known" in capsys.readouterr().out


@pytest.mark.slow
def test_the_picture(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    need("matplotlib", "plot")
    file = tmp_path / "chart.svg"
    assert main([*WORDS, "--plot", str(file)]) == 0
    assert "<svg" in file.read_text(encoding="utf-8")


def test_the_machine_at_hand_is_compared_first(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["llama-8b", "--gpus", "1xL4", "--compare", "1xH100", "--workload", "locomo", "--json"]
    assert main(words) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["compare"]] == ["1xL4", "1xH100"]


def test_one_unknown_price_does_not_end_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["1xRTX4090@0", "openai:nonesuch", "openai:gpt-4o-mini", "--workload", "locomo"]
    assert main(["--compare", *words, "--json"]) == 0
    own, unknown, known = json.loads(capsys.readouterr().out)["compare"]
    assert own["workload"]["usd"]["likely"] == 0 and own["cost"]["usd_per_hour"] == 0
    assert not unknown["fits"] and "@IN/OUT" in unknown["reason"]
    assert known["workload"]["usd"]["likely"] > 0
    assert main(["--compare", *words]) == 0
    assert "no price is known" in capsys.readouterr().out


def test_the_instance_stands_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llama-8b", "--gpus", "1xB200"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    for word in (
        "14.24 $/h",
        "1 of the 8 cards of p6-b200.48xlarge",
        "113.93 $/h",
        "us-east-1",
        "2026-07-20",
    ):
        assert word in page


def test_hours_of_a_provider_are_derived_or_called_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["gpt-4o-mini", "--workload", "longmemeval-s"]
    assert main([*words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert {one["name"] for one in plan["assumptions"]} >= {"seconds_per_request", "concurrency"}
    assert main(words) == 0
    assert "assumed: seconds per request 10" in capsys.readouterr().out
    assert main([*words, "--tpm", "200k", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["workload"]["hours"]["likely"] == pytest.approx(57.75e6 / 200000 / 60, rel=1e-3)
    assert plan["assumptions"] == []
