"""Compression: sizes by hand, speed by cause, accuracy by quotation."""

from __future__ import annotations

import pytest

from memserve.errors import DoesNotFit, InvalidInput
from memserve.hardware import parse
from memserve.model import catalogue, load
from memserve.plan import best
from memserve.speed import compression, losses

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
    assert all(row.source.startswith("https://") for row in losses.accuracy("fp8"))
    assert losses.accuracy("w4a16", "meta-llama/Meta-Llama-3.1-70B-Instruct")[0].compressed == 78.54
    assert losses.accuracy("3:7") == ()


def test_at_least_120_losses_are_published_by_model_and_method():
    methods = ("gptq", "awq", "fp8", "w8a8", "w4a16", "nf4", "nvfp4", "mxfp4", "gguf-q4_k_m", "gguf-q8_0",
               "2:4", "unstructured:0.5", "layers:7")  # fmt: skip
    rows = {method: losses.accuracy(method) for method in methods}
    assert all(rows.values())
    every = losses._published()
    assert len({(row.model, row.method, row.by, row.benchmark) for row in every}) == len(every) >= 120
    assert {row.by for row in rows["2:4"]} == {"Wanda", "SparseGPT"}
    assert all(-0.05 < row.loss < 3 for found in rows.values() for row in found)


@pytest.mark.parametrize(("model", "method", "whose"), [
    ("meta-llama/Llama-2-70b-hf", "gguf-q4_k_m", ""), ("meta-llama/Llama-2-13b-hf", "nvfp4", losses.FAMILY),
    ("tiiuae/falcon-7b", "gptq", losses.OTHER),
])  # fmt: skip
def test_a_borrowed_row_says_whose_it_is(model, method, whose):
    assert losses.accuracy(method, model)[0].of(model) == whose


def test_the_nearest_size_of_a_family_is_quoted():
    assert losses.accuracy("awq", "Qwen/Qwen2.5-0.5B")[0].model == "Qwen/Qwen2-0.5B-Instruct"
    assert losses.accuracy("awq", "meta-llama/Llama-3.3-70B-Instruct")[0].model == "meta-llama/Llama-2-70b-hf"


def test_what_was_measured_here_comes_first_and_only_the_newest(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMSERVE_CONFIG_DIR", str(tmp_path))
    for after in (9.0, 8.0):
        losses.keep(
            losses.Accuracy("fp8", "Qwen/Qwen2.5-7B", "text", 5.0, after, "report.json", True, own=True)
        )
    first, second, *_ = losses.accuracy("fp8", "qwen/qwen2.5-7b")
    assert (first.own, first.loss, second.own) == (True, pytest.approx(0.6), False)
    assert losses.accuracy("fp8", "openchat/openchat")[0].own, "and before another family's, too"
    (tmp_path / "losses.json").write_text("[1")
    assert not losses.accuracy("fp8", "Qwen/Qwen2.5-7B")[0].own


def test_a_folder_is_the_same_model_by_any_path_and_another_one_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMSERVE_CONFIG_DIR", str(tmp_path / "config"))
    for name in ("one", "two"):
        (tmp_path / name / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "one")
    losses.keep(losses.Accuracy("fp8", "model", "x", 10, 12, "y", perplexity=True, own=True))
    for name in ("model", "./model/", str(tmp_path / "one" / "model")):
        assert losses.accuracy("fp8", name)[0].of(name) == losses.ITSELF
    monkeypatch.chdir(tmp_path / "two")
    assert losses.accuracy("fp8", "model")[0].of("model") != losses.ITSELF


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


def test_no_model_is_refused_for_a_context_that_nobody_asked_for():
    """Those made for fewer tokens than the usual request has are told as the others are."""
    short = [load(row.id) for row in catalogue.rows() if 0 < (load(row.id).max_context or 0) < 8192]
    assert len(short) > 10
    for spec in short:
        found = compression.quantizations(spec, parse("8xH200"), "vllm", names=("none",))
        assert "tokens" not in found[0].refused, spec.id
