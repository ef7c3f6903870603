"""Compression: sizes by hand, speed by cause, accuracy by quotation."""

from __future__ import annotations

import pytest

from memserve.errors import DoesNotFit, InvalidInput
from memserve.hardware import parse
from memserve.model import load
from memserve.plan import best
from memserve.speed import compression

LLAMA = load("meta-llama/Llama-3.1-8B-Instruct")


def effects(spec, **words):
    found = compression.quantizations(LLAMA, parse(spec), "vllm", **words)
    return {effect.method: effect for effect in found}


def test_sizes():
    found = effects("1xH100")
    assert found["none"].weight_bytes == pytest.approx(16.06e9, rel=0.01)
    linear = 8.03e9 - 2 * 128256 * 4096
    assert found["awq"].weight_bytes == pytest.approx(2 * 2 * 128256 * 4096 + linear * 4.25 / 8, rel=0.01)


def test_four_bits_help_a_small_batch_and_not_a_large_one():
    alone, crowd = effects("1xA100", concurrency=1), effects("1xA100", concurrency=256)
    assert alone["awq"].faster > 1.5
    assert crowd["awq"].faster < 1.15
    assert crowd["awq"].faster < alone["awq"].faster


def test_fp8_arithmetic_needs_a_card_that_has_it():
    hopper, ampere = effects("1xH100", concurrency=256), effects("1xA100", concurrency=256)
    assert hopper["fp8"].faster > ampere["fp8"].faster


def test_single_zeros_save_nothing():
    found = compression.prune(LLAMA, parse("1xA100"), "vllm", "unstructured:0.5")
    assert found.faster == 1
    assert found.weight_bytes == pytest.approx(16.06e9, rel=0.01)
    assert "dense" in found.note


@pytest.mark.parametrize(("pattern", "size"), [("channel:0.25", 0.85), ("layer:8", 0.85)])
def test_structured_pruning_saves(pattern, size):
    found = compression.prune(LLAMA, parse("1xA100"), "vllm", pattern)
    assert found.weight_bytes < size * 16.06e9
    assert found.faster > 1


def test_patterns_without_kernels_save_nothing():
    assert compression.prune(LLAMA, parse("1xA100"), "vllm", "2:4").faster == 1
    assert compression.prune(LLAMA, parse("1xA100"), "vllm", "4:8").faster == 1


@pytest.mark.parametrize("pattern", ["4:2", "unstructured:1", "layer:99", "layer:1.5", "channel:x", "magic"])
def test_malformed_patterns_are_refused(pattern):
    with pytest.raises(InvalidInput):
        compression.prune(LLAMA, parse("1xA100"), "vllm", pattern)


def test_accuracy_is_quoted_or_absent():
    assert all(row.source.startswith("https://") for row in compression.accuracy("fp8"))
    assert compression.accuracy("w4a16", "meta-llama/Meta-Llama-3.1-70B-Instruct")[0].compressed == 78.54
    assert compression.accuracy("2:4") == ()


@pytest.mark.parametrize("gpus", ["1xV100", "1xT4", "1xH100", "8x910B4"])
def test_what_the_planner_refuses_gets_no_ratio(gpus):
    backend = "ascend" if "910" in gpus else "vllm"
    found = compression.quantizations(LLAMA, parse(gpus), backend)
    for one in found:
        assert (one.faster is None) >= bool(one.refused)
        if one.refused and not one.refused.startswith("does not fit"):
            with pytest.raises(DoesNotFit):
                best(LLAMA, gpus, backend=backend, quantization=one.method, tp=1)
    assert any(one.refused for one in found)
    if found[0].refused:
        assert all(one.faster is None for one in found)
