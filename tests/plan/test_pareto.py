"""`--objective` shows what no other candidate beats in throughput, latency and cost at once."""

from __future__ import annotations

import json

import pytest

from memserve.plan.__main__ import main
from memserve.plan.search.choice import Trade

CALL = ("llama-8b", "--gpus", "4xA100", "--concurrency", "16", "--objective")


def trade(*weighed: float) -> Trade:
    return Trade(None, 1, 1, 1, None, weighed)  # type: ignore[arg-type]


def test_who_beats_whom() -> None:
    assert trade(1, 1, 1).beats(trade(1, 2, 1))
    assert not trade(1, 2, 1).beats(trade(2, 1, 1))
    assert not trade(1, 1, 1).beats(trade(1, 1, 1))


@pytest.mark.parametrize("objective", ["throughput", "latency", "cost"])
def test_the_plan_is_among_the_trades(objective: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CALL, objective, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rates = [row["output_tokens_per_s"] for row in found["pareto"]]
    waits = [row["answer_s"] for row in found["pareto"]]
    assert len(rates) > 1 and rates == sorted(rates, reverse=True) and waits == sorted(waits, reverse=True)
    keys = ("backend", "quantization", "tensor_parallel", "data_parallel")
    place = {"throughput": 0, "latency": -1, "cost": 0}[objective]
    assert [found["pareto"][place][key] for key in keys] == [found["plan"][key] for key in keys]


def test_the_table_marks_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CALL, "latency"]) == 0
    text = capsys.readouterr().out
    assert "trade-offs" in text and "\n  *  vllm" in text


def test_quality_needs_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CALL, "quality", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pareto"] == []


def test_what_was_never_measured_does_not_win_by_a_bound(capsys: pytest.CaptureFixture[str]) -> None:
    call = [
        "llama-8b",
        "--gpus",
        "1xH100",
        "--workload",
        "1000:200:5000",
        "--objective",
        "throughput",
        "--json",
    ]
    assert main(call) == 0
    assert not json.loads(capsys.readouterr().out)["plan"]["speed"]["at_most"]
