"""Every figure of a plan says what it rests on."""

from __future__ import annotations

import json

import pytest

import memserve
from memserve.memory import calibration
from memserve.memory.calibration import Calibration
from memserve.plan.search import judging

KINDS = {
    ("llama-8b", "1xH100@2"): {"memory": "measured", "speed": "published", "price": "given"},
    ("llama-8b", "1xL4"): {"memory": "measured", "speed": "assumed", "price": "published"},
    ("llama-8b", "8x910B4"): {"memory": "measured", "speed": "published"},
    ("gpt-4o-mini", None): {"price": "published"},
}


@pytest.mark.parametrize(("model", "gpus"), KINDS)
def test_each_figure_has_a_kind_and_a_source(model: str, gpus: str | None) -> None:
    plan = memserve.plan.best(model, gpus)
    assert {name: row["kind"] for name, row in plan.evidence.items()} == KINDS[model, gpus]
    assert all(row["source"] for row in plan.evidence.values())
    assert json.loads(json.dumps(plan.to_dict()))["evidence"] == plan.evidence
    assert all(f"{name} {row['kind']}" in str(plan) for name, row in plan.evidence.items())


def test_hours_are_assumed_until_the_limits_are_said() -> None:
    unsaid = memserve.plan.best("gpt-4o-mini", workload="locomo")
    said = memserve.plan.best("gpt-4o-mini", workload="locomo", rpm=500, tpm=200_000)
    assert [one.evidence["hours"]["kind"] for one in (unsaid, said)] == ["assumed", "computed"]


def test_a_calibration_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Calibration("vllm", "L4", non_torch=100 << 20, log="start.log", date="2026-11-30")
    monkeypatch.setattr(judging, "_calibrations", lambda: (known,))
    assert calibration.find((known,), backend="vllm", card="L4", tensor=1) is known
    evidence = memserve.plan.best("llama-8b", "1xL4", backend="vllm").evidence["memory"]
    assert evidence["kind"] == "calibrated" and "start.log" in evidence["source"]


def test_a_check_follows_a_calibration_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> tuple[int | None, list[str]]:
        plan = memserve.plan.check(
            "vllm serve llama-8b --max-model-len 8192", "1xL4", engine_version="0.19.1"
        )
        return plan.kv_cache_tokens, [
            one["source"] for one in plan.assumptions if "calibration" in one["name"]
        ]

    plain = told()
    known = Calibration("vllm", "L4", version="0.19.1", residual=-(200 << 20), log="start.log")
    monkeypatch.setattr(judging, "_calibrations", lambda: (known,))
    learnt = told()
    assert plain[0] and learnt[0] == pytest.approx(plain[0] - (200 << 20) // 131072, abs=16)
    assert plain[1] == [] and learnt[1] == ["--calibrate start.log"]


def test_a_start_is_tight_where_its_bar_crosses_what_a_request_takes() -> None:
    """As the share of the card grows a start is refused, tight in either way, and runs."""
    command = "vllm serve meta-llama/Llama-3.1-8B-Instruct --max-model-len 8192 --gpu-memory-utilization"
    shares = (0.70, 0.71, 0.72, 0.73, 0.74, 0.75, 0.76, 0.78, 0.80)
    plans = [memserve.plan.check(f"{command} {share}", "1xL4", engine_version="0.25.0") for share in shares]
    for plan in plans:
        assert plan.error_bars is not None
        tokens = plan.error_bars["kv_cache_tokens"]
        assert bool(plan.tight) == (tokens["low"] < 8192 <= tokens["high"])
        assert plan.to_dict()["tight"] == (plan.tight or None)
        assert plan.tight in str(plan)
    said = [(plan.outcome, bool(plan.tight)) for plan in plans]
    assert list(dict.fromkeys(said)) == [
        ("refused", False),
        ("refused", True),
        ("runs", True),
        ("runs", False),
    ]
