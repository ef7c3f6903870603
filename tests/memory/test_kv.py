"""What a layer keeps for past tokens on one rank."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from starts import model

from memserve.memory.kv import element_bytes, layer_cache, layer_caches, token_bytes
from memserve.model.spec import Mixer

GROUPED = Mixer("full", heads=32, kv_heads=8, head_dim=128, value_dim=128)


def test_grouped_heads():
    assert layer_cache(GROUPED, 1, 2).token_bytes == 2 * 8 * 128 * 2
    assert layer_cache(GROUPED, 4, 2).token_bytes == 2 * 2 * 128 * 2


def test_a_rank_holds_one_kv_head_at_least():
    assert layer_cache(GROUPED, 32, 2).token_bytes == 2 * 128 * 2


def test_latents_are_replicated():
    latent = Mixer("mla", heads=128, kv_heads=1, head_dim=192, value_dim=128, kv_lora_rank=512, rope_dim=64)
    assert layer_cache(latent, 1, 2).token_bytes == layer_cache(latent, 8, 2).token_bytes == 1152


def test_the_indexer_of_sparse_attention_has_a_key_of_its_own():
    sparse = Mixer("mla", heads=128, kv_lora_rank=512, rope_dim=64, index_dim=128)
    cache = layer_cache(sparse, 8, 2)
    assert (cache.token_bytes + cache.index_bytes) / 1152 == pytest.approx(1.22, abs=0.005)


def test_kimi_k2_takes_70272_bytes_per_token():
    assert token_bytes(layer_caches(model("moonshotai--Kimi-K2-Thinking"), 8, 2)) == 70_272


def test_windows_and_states_are_told_apart():
    window = Mixer("sliding", heads=8, kv_heads=4, head_dim=128, value_dim=128, window=1024)
    assert (layer_cache(window, 1, 2).kind, layer_cache(window, 1, 2).window) == ("window", 1024)
    state = Mixer("linear", state=((10240, 3), (48, 128, 128)), state_dtype="float32")
    assert layer_cache(state, 4, 2).state_bytes == 10240 * 3 * 2 // 4 + 48 * 128 * 128 * 4 // 4


def test_a_layer_that_reads_another_one_keeps_nothing():
    assert layer_cache(Mixer("full", 8, 8, 64, 64, shares_cache_of=3), 1, 2) is None
    assert layer_cache(Mixer("none"), 1, 2) is None


@pytest.mark.parametrize(
    ("kv_dtype", "dtype", "size"),
    [("auto", "bfloat16", 2), ("auto", "float32", 4), ("fp8", "bfloat16", 1), ("fp8_e5m2", "float16", 1)],
)
def test_bytes_of_an_element(kv_dtype, dtype, size):
    assert element_bytes(kv_dtype, dtype) == size
