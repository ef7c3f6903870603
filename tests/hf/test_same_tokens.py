"""Batched decoding gives the tokens of transformers' own generate, on every kind of attention."""

from __future__ import annotations

from random import Random

import pytest
from tiny_hf import causal, greedy

pytestmark = pytest.mark.engine("hf")

SLOTS = {
    "full": ("Llama", {}),
    "one key head": ("Llama", {"num_key_value_heads": 1}),
    "sliding": ("Mistral", {"sliding_window": 12}),
    "sliding and full": (
        "Gemma3Text",
        {
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "query_pre_attn_scalar": 8,
        },
    ),
    "learned positions": ("GPT2", {}),
    "chunked": (
        "Llama4Text",
        {"attention_chunk_size": 16, "num_local_experts": 2, "intermediate_size_mlp": 64},
    ),
    "soft caps": ("Gemma2", {"sliding_window": 8, "query_pre_attn_scalar": 8}),
    "latent": (
        "DeepseekV3",
        {
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 16,
            "first_k_dense_replace": 1,
        },
    ),
    "experts": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen": ("Qwen3", {}),
}
SINGLES = {
    "recurrent": ("Mamba", {"tie_word_embeddings": True}),
    "recurrent and full": (
        "Qwen3Next",
        {
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "attention bias by distance": ("Bloom", {"n_head": 4, "n_layer": 2}),
}


def prompts(count: int, longest: int, seed: int = 3) -> list[list[int]]:
    random = Random(seed)
    return [[random.randrange(5, 120) for _ in range(random.randrange(1, longest))] for _ in range(count)]


def opened(folder, **options):
    import memserve

    return memserve.generator(str(folder), backend="hf", dtype="float32", **options)


@pytest.mark.parametrize("name", [*SLOTS, *SINGLES])
def test_tokens_equal_transformers(tmp_path, name):
    kind, changes = {**SLOTS, **SINGLES}[name]
    folder = causal(tmp_path, kind, **changes)
    asked = prompts(10, 60)
    with opened(folder, max_rows=4) as generator:
        made = generator.generate(asked, max_tokens=24)
        fast = type(generator._engine._loop.stepper).__name__
    assert fast == ("Singles" if name in SINGLES else "Slots")
    assert [list(one.token_ids) for one in made] == greedy(folder, asked, 24)


def test_long_prompts_come_in_pieces(tmp_path):
    folder = causal(tmp_path)
    asked = prompts(6, 200)
    with opened(folder, prefill_tokens=32) as generator:
        made = generator.generate(asked, max_tokens=8)
    assert [list(one.token_ids) for one in made] == greedy(folder, asked, 8)


def test_a_shared_prefix_is_computed_once(tmp_path):
    folder = causal(tmp_path)
    shared = prompts(1, 150, seed=9)[0] * 2
    shared = (shared * 130)[:130]
    asked = [[*shared, *tail] for tail in prompts(8, 12)]
    with opened(folder) as generator:
        made = generator.generate(asked, max_tokens=8)
        again = generator.generate(asked[0], max_tokens=8)
    assert [list(one.token_ids) for one in made] == greedy(folder, asked, 8)
    assert sum(one.usage.cached_tokens == 0 for one in made) == 1
    assert all(one.usage.cached_tokens >= 128 for one in made if one.usage.cached_tokens)
    assert again.usage.cached_tokens >= 128
    assert again.token_ids == made[0].token_ids


def test_the_prefix_cache_may_be_off_or_small(tmp_path):
    folder = causal(tmp_path)
    asked = [[7] * 100 + tail for tail in prompts(4, 12)]
    for room in (0, 1e-6):
        with opened(folder, prefix_cache_gib=room) as generator:
            made = generator.generate(asked, max_tokens=4)
            assert [list(one.token_ids) for one in made] == greedy(folder, asked, 4)
            assert all(one.usage.cached_tokens == 0 for one in made)


def test_the_mask_for_flash_attention_says_the_same(tmp_path):
    """Its 2D mask and row-by-row prefill, run on SDPA, which reads the same mask."""
    folder = causal(tmp_path)
    asked = prompts(8, 40)
    with opened(folder, max_rows=3) as generator:
        generator._engine._loop.stepper.flash = True
        made = generator.generate(asked, max_tokens=12)
    assert [list(one.token_ids) for one in made] == greedy(folder, asked, 12)


def test_half_precision_runs(tmp_path):
    import memserve

    folder = causal(tmp_path, dtype="bfloat16")
    with memserve.generator(str(folder), backend="hf", dtype="bfloat16") as generator:
        assert not generator.capabilities.deterministic
        made = generator.generate(prompts(5, 30), max_tokens=6)
    assert all(one.error is None and one.token_ids for one in made)


def test_more_samples_than_have_room_are_drawn_in_turns(tmp_path):
    folder = causal(tmp_path)
    settings = {"max_tokens": 5, "temperature": 1.0, "seed": 3}
    with opened(folder, max_rows=4) as generator:
        few = generator.generate(prompts(1, 20)[0], n=4, **settings)
        many = generator.generate(prompts(1, 20)[0], n=11, **settings)
    assert len(many.samples) == 11
    assert [one.token_ids for one in many.samples[:4]] == [one.token_ids for one in few.samples]
    assert len({one.token_ids for one in many.samples}) > 8
    assert many.usage.completion_tokens == sum(len(one.token_ids) for one in many.samples)


def test_memory_follows_who_is_there_not_who_was(tmp_path):
    """Many short rows, then a long one, or the other way round: never many slots as long as the longest."""
    folder = causal(tmp_path)
    short, long = prompts(1, 8)[0], prompts(1, 8)[0] * 20
    with opened(folder, max_rows=16, prefix_cache_gib=0) as generator:
        stepper = generator._engine._loop.stepper
        stepper.most = generator._engine._loop.max_positions = 1200
        for asked in ([short] * 16, [long], [short] * 16, [long, *[short] * 8]):
            made = generator.generate(asked, max_tokens=8)
            assert [list(one.token_ids) for one in made] == greedy(folder, asked, 8)
            keys = stepper.cache.layers[0].keys
            assert keys.shape[0] * keys.shape[2] < 2 * 1200
