"""SGLang's start-up: its fraction by version and card, its pools."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from starts import GIB, model

from memserve.engines.deployment import Deployment, Layout
from memserve.hardware import parse
from memserve_sglang.memory import accountant, fraction

LLAMA = "meta-llama--Llama-3.1-8B-Instruct"


def deployment(version="0.5.7", **more):
    return Deployment("sglang", version, **{"quantization": "none", "dtype": "bfloat16", **more})


@pytest.mark.parametrize(
    ("version", "gpus", "tensor", "share"),
    [
        ("0.4.3", "1xH100", 1, 0.88), ("0.4.3", "8xH100", 8, 0.81), ("0.4.8", "1xH100", 1, 0.874),
        ("0.5.7", "1xH100", 1, 0.836), ("0.5.7", "8xH100", 8, 0.817),
    ],
)  # fmt: skip
def test_the_fraction_by_version(version, gpus, tensor, share):
    found = fraction(model(LLAMA), parse(gpus), deployment(version, layout=Layout(tensor)))
    assert found == pytest.approx(share, abs=0.02)


def test_a_fraction_that_was_asked_for_is_taken():
    assert fraction(model(LLAMA), parse("H100"), deployment(utilization=0.7)) == 0.7


def test_the_pool_is_the_fraction_of_free_memory_less_the_weights():
    found = accountant.account(model(LLAMA), parse("H100"), deployment(utilization=0.8))
    free = found.total - accountant.context_bytes(parse("H100"), deployment())
    assert found.kv_cache == pytest.approx(0.8 * free - found.weights, abs=10)
    assert found.kv_tokens == found.kv_cache // 131_072
    assert found.weights + found.activation + found.non_torch + found.kv_cache <= found.usable


def test_dp_attention_replicates_attention_and_its_cache():
    spec, machine = model("vllm-ascend--Qwen3-235B-A22B-W8A8"), parse("16xA3")
    apart = accountant.account(spec, machine, deployment(utilization=0.75, layout=Layout(16)))
    groups = deployment(utilization=0.75, layout=Layout(16, attention_data=16))
    shared = accountant.account(spec, machine, groups)
    assert shared.weights > apart.weights
    assert shared.kv_tokens < apart.kv_tokens / 3


def test_weights_beyond_the_fraction_are_refused_and_beyond_the_card_do_not_load():
    spec = model(LLAMA)
    refused = accountant.account(spec, parse("910B2"), deployment(utilization=0.2))
    assert (refused.outcome, "mem_fraction_static" in refused.reasons[0]) == ("refused", True)
    assert accountant.account(spec, parse("T4"), deployment(utilization=0.9)).outcome == "out_of_memory"


def test_pages_on_ascend_hold_128_tokens():
    found = accountant.account(model(LLAMA), parse("910B2"), deployment(utilization=0.8))
    assert found.kv_tokens % 128 == 0


def test_sliding_layers_keep_a_share_of_the_tokens():
    spec = model("google--gemma-2-9b-it")
    asked = deployment(utilization=0.8)
    full = accountant.account(
        spec, parse("H100"), deployment(utilization=0.8, options=(("disable-hybrid-swa-memory", "true"),))
    )
    assert accountant.account(spec, parse("H100"), asked).kv_tokens == pytest.approx(
        full.kv_tokens / 0.9, rel=0.001
    )


def test_the_largest_context_fits_the_pool():
    spec = model(LLAMA)
    largest = accountant.largest_context(spec, parse("RTX3090"), deployment(utilization=0.85))
    assert 0 < largest < spec.max_context
    assert accountant.account(spec, parse("RTX3090"), deployment(utilization=0.85)).kv_cache > 0.5 * GIB


@pytest.mark.parametrize(
    ("release", "card", "ranks", "reserved"),
    [
        ("0.4.8", "H100", 1, 10 * 1024), ("0.5.2", "H100", 8, 13.5 * 1024),
        ("0.5.2", "RTX4090", 1, 2.9 * 1024),
        ("0.5.3", "H100", 1, 13_440), ("0.5.9", "H100", 8, 512 + 12_288 + 1024 + 1024),
        ("0.5.10", "H100", 1, 13_440 + 58 * 8), ("0.5.4", "RTX4090", 1, 512 + 3072 + 32 + 128),
        ("0.5.23", "RTX4090", 1, 512 + 6144 + 96 + 128 + 50 * 8),
        ("0.5.23", "B200", 1, 512 + 24_576 + 1024 + 128 + 74 * 8),
        ("0.4.7", "H200", 1, 18_432),
    ],
)  # fmt: skip
def test_what_each_release_reserves(release, card, ranks, reserved):
    """MiB, as server_args.py and memory_hook.py of that release add them up."""
    machine = parse(f"{ranks}x{card}")
    asked = Deployment("sglang", release, layout=Layout(tensor=ranks), context=8192)
    told = {one.name: one for one in accountant.assumptions(model("Llama-3.1-8B-Instruct"), machine, asked)}
    memory = machine.card.driver_memory / 2**20
    assert told["mem_fraction_static"].value == pytest.approx((memory - reserved) / memory, abs=0.00051)
    assert "sglang" in told["mem_fraction_static"].source
    said = replace(asked, utilization=0.5, max_batched_tokens=512)
    told = {one.name: one for one in accountant.assumptions(model("Llama-3.1-8B-Instruct"), machine, said)}
    assert [told[name].value for name in ("mem_fraction_static", "chunked_prefill_size")] == [0.5, 512]
    assert told["mem_fraction_static"].source == "--mem-fraction-static of the command"
