"""What flags add to the weights, or leave out of them: adapters, draft layers, heads."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from starts import config, model

import memserve.plan

LLAMA, QWEN3 = "Llama-3.1-8B-Instruct", "Qwen3-32B"


@pytest.fixture
def ask(tmp_path):
    def answer(name, words="", gpus="1xH100"):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(config(name)), encoding="utf-8")
        command = f"vllm serve {path} --max-model-len 4096 {words}"
        return memserve.plan.check(command, gpus, engine_version="0.19.0")

    return answer


def weights(plan):
    return plan.memory_gib_per_card["weights"]


def test_adapters_take_their_buffers_when_the_model_is_loaded(ask):
    """32 layers x 81,920 rows of both factors x rank 16 x 2 bytes; four of 64 take 16 times that."""
    bare = weights(ask(LLAMA))
    one = weights(ask(LLAMA, "--enable-lora")) - bare
    many = weights(ask(LLAMA, "--enable-lora --max-loras 4 --max-lora-rank 64")) - bare
    assert one == pytest.approx(32 * 81_920 * 16 * 2 / 2**30, abs=0.001)
    assert many == pytest.approx(16 * one, rel=0.01)


def test_sharded_adapters_take_less_on_each_card(ask):
    words = "--tensor-parallel-size 4 --enable-lora --max-lora-rank 64"
    whole, shared = (ask(LLAMA, words + more, "4xH100") for more in ("", " --fully-sharded-loras"))
    assert weights(shared) < weights(whole)


def test_what_pools_loads_no_head_and_samples_nothing(ask):
    wrote, pooled = ask(QWEN3), ask(QWEN3, "--runner pooling")
    head = next(weight for weight in model(QWEN3).top if weight.part == "head")
    assert weights(wrote) - weights(pooled) == pytest.approx(head.parameters * 2 / 2**30, abs=0.01)
    assert pooled.memory_gib_per_card["activation"] < wrote.memory_gib_per_card["activation"]


def test_own_draft_layers_take_weights_and_cache(ask):
    """Qwen3.8-27B on one machine: 51.10 to 51.89 GiB of weights, 6.9 % more bytes a token (0.26.0)."""
    words = """--language-model-only --speculative-config '{"method": "mtp", "num_speculative_tokens": 1}'"""
    alone, drafting = ask("Qwen3.5-27B", "--language-model-only"), ask("Qwen3.5-27B", words)
    assert 0.6 < weights(drafting) - weights(alone) < 0.9
    each = [plan.memory_gib_per_card["kv_cache"] / plan.kv_cache_tokens for plan in (alone, drafting)]
    assert each[1] / each[0] == pytest.approx(1.069, abs=0.03)
