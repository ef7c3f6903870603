"""Sizes on disk and in an object store, and what the store asks for them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memserve.hardware.machine import GIB
from memserve.plan import best, storage
from memserve.speed import prices

ROWS = prices.stores()
S3 = next(row["classes"] for row in ROWS if row["store"] == "AWS S3")


def told(model: str, gpus: str, **wishes: Any) -> Any:
    return best(model, gpus, **wishes).to_dict()["storage"]


def test_a_download_is_the_checkpoint_that_is_loaded() -> None:
    plain = told("llama-8b", "1xH100", quantization="none")
    assert plain["download_gib"] == pytest.approx(8_030_261_248 * 2 / GIB, rel=1e-3)
    assert plain["disk_gib"] >= plain["download_gib"]
    packed = told("llama-70b", "4xV100")
    assert packed["download_gib"] < 45  # 4 bits a weight
    small = "Qwen/Qwen2.5-0.5B-Instruct"
    loaded = best(small, "1xL4", backend="hf", quantization="int8")
    assert loaded.checkpoint.online  # packed while it is loaded
    assert storage.told(loaded)["download_gib"] == told(small, "1xL4", quantization="none")["download_gib"]


@pytest.mark.parametrize("quantization", ["gptq", "awq", "fp8", "none"])
@pytest.mark.parametrize("model", ["qwen3-32b", "qwen3-8b"])
def test_a_download_has_the_bits_of_its_checkpoint(model: str, quantization: str) -> None:
    """Some checkpoints of a method have 8 bits, and others 4: JunHowie/Qwen3-32B-GPTQ-Int8 takes 32.7 GiB."""
    plan = best(model, "1xA100-80GB", quantization=quantization)
    assert plan.footprint is not None and not plan.checkpoint.online
    found = plan.to_dict()["storage"]
    assert found["weights_gib"] == pytest.approx(plan.footprint.weights / GIB, rel=0.02)


def test_a_checkpoint_that_is_made_stands_beside_what_it_is_made_of() -> None:
    plan = best("llama-8b", "1xL4", backend="vllm", quantization="w8a8")
    sizes = plan.to_dict()["storage"]
    if plan.checkpoint.make:
        assert sizes["weights_gib"] < sizes["download_gib"] < sizes["disk_gib"]
    else:
        assert sizes["weights_gib"] == sizes["download_gib"]


def test_a_provider_keeps_the_weights() -> None:
    assert told("gpt-4o-mini", "cpu", backend="openai") is None


def test_a_workload_has_data_and_results() -> None:
    sizes = told("llama-8b", "1xH100", workload="1000:200:5000")
    assert sizes["data_gib"] == pytest.approx(5000 * 1000 * 4 / GIB, rel=1e-3)
    assert 0 < sizes["results_gib"] < sizes["data_gib"]
    for row in sizes["stores"]:
        assert all(costs["30"] <= costs["90"] <= costs["365"] for costs in row["usd"].values())
    assert told("llama-8b", "1xH100")["stores"][0]["usd"]["data"] is None


def test_things_move_to_cheaper_classes_as_they_age() -> None:
    month = 365 / 12
    assert storage.usd(S3, 100, 30) == pytest.approx(2.3 * 30 / month)
    assert storage.usd(S3, 100, 90) == pytest.approx((2.3 * 30 + 1.25 * 60) / month)
    assert storage.usd(S3, 100, 365) == pytest.approx((2.3 * 30 + 1.25 * 60 + 0.4 * 275) / month)
    assert storage.usd(S3, 100, 31) == pytest.approx((2.3 * 30 + 1.25 * 30) / month)  # it charges for 30


@given(days=st.integers(1, 2000), gib=st.floats(0.001, 1e6), row=st.sampled_from(ROWS))
def test_costs_grow_with_time_and_size_within_the_first_class(days: int, gib: float, row: Any) -> None:
    classes = row["classes"]
    cost = storage.usd(classes, gib, days)
    assert 0 < cost <= storage.usd(classes, gib, days + 1) + 1e-9
    assert storage.usd(classes, 2 * gib, days) == pytest.approx(2 * cost)
    assert storage.usd(classes[:1], gib, days + 120) >= storage.usd(classes, gib, days)
