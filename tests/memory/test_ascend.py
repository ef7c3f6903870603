"""vLLM-Ascend's start-up: vLLM's sum with its own constants."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from starts import GIB, model

from memserve.engines.deployment import Deployment
from memserve.hardware import parse
from memserve.plan import best, check
from memserve_ascend.memory import accountant
from memserve_vllm.memory import accountant as on_cuda

QWEN = "Qwen--Qwen2.5-14B-Instruct"


def deployment(**more):
    return Deployment(
        "ascend", "0.21.0", **{"quantization": "none", "dtype": "float16", "context": 32_768, **more}
    )


def test_blocks_hold_128_tokens():
    assert accountant.account(model(QWEN), parse("910B2"), deployment()).kv_tokens % 128 == 0


def test_the_forward_pass_alone_makes_the_peak():
    small = accountant.account(model(QWEN), parse("910B2"), deployment())
    large = accountant.account(
        model(QWEN), parse("910B2"), deployment(max_batched_tokens=32_768, max_sequences=16)
    )
    assert small.activation / GIB == pytest.approx(0.22, abs=0.05)
    assert large.activation / GIB == pytest.approx(3.48, abs=0.02)


def test_torch_npu_counts_bytes_not_segments():
    npu = accountant.account(model(QWEN), parse("910B2"), deployment())
    cuda = on_cuda.account(model(QWEN), parse("A100-80GB"), deployment())
    assert 0.03 * GIB < cuda.weights - npu.weights < 0.06 * GIB


@pytest.mark.parametrize(
    ("version", "least", "most"),
    [
        ("0.23.0 (vllm-hust fork)", 0.4, 0.9),
        ("0.23.0", 0, 0.2),
        ("0.21.0 (vllm-hust fork)", 0.4, 0.9),
        ("0.21.0rc1", 0.4, 0.9),
        ("0.22.1rc1", 0.4, 0.9),
    ],
)
def test_the_fork_whose_logs_are_known_leaves_its_graphs_unclaimed(version, least, most):
    asked = replace(deployment(utilization=0.9), engine_version=version)
    found = accountant.account(model(QWEN), parse("910B2"), asked)
    rest = found.usable - found.weights - found.activation - found.non_torch - found.kv_cache
    assert least <= rest / GIB <= most


def test_a_card_in_use_is_refused_before_anything_loads():
    busy = replace(parse("910B2"), free_memory=(20 * GIB,))
    found = accountant.account(model(QWEN), busy, deployment(utilization=0.9))
    assert (found.outcome, "free memory at start" in found.reasons[0]) == ("refused", True)


def test_up_to_0_14_what_a_process_takes_at_start_counts_and_encoders_do_not():
    """vllm_ascend worker_v1.py and model_runner_v1.py of 0.9.1 to 0.14.0rc1."""
    old, new = (
        accountant.account(model(QWEN), parse("910B2"), replace(deployment(), engine_version=version))
        for version in ("0.14.0rc1", "0.15.0rc1")
    )
    assert (old.non_torch - new.non_torch) / GIB == pytest.approx(0.35, abs=0.01)
    seen = [
        accountant.account(
            model("Qwen2.5-VL-7B-Instruct"), parse("910B2"), replace(deployment(), engine_version=version)
        ).activation
        for version in ("0.11.0", "0.13.0")
    ]
    assert seen[1] - seen[0] > GIB


def test_a_310p_computes_in_float16_and_without_graphs():
    """A start with graphs died in 0.9.2rc1; a bfloat16 checkpoint is not turned into float16."""
    ask = "vllm serve Qwen/Qwen2.5-7B-Instruct --max-model-len 4096"
    old, new = "0.13.0", "0.23.0"
    seen = {
        (version, words): check(f"{ask} {words}", "1x310P", engine_version=version).outcome
        for version in (old, new)
        for words in ("", "--dtype float16", "--dtype float16 --enforce-eager")
    }
    assert [seen[old, words] for words in ("", "--dtype float16")] == ["refused", "refused"]
    assert [seen[new, words] for words in ("", "--dtype float16")] == ["refused", "runs"]
    assert {seen[version, "--dtype float16 --enforce-eager"] for version in (old, new)} == {"runs"}
    assert "--enforce-eager" in best("qwen2.5-7b", "1x310P", backend="ascend", engine_version=old).command
