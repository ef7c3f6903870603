"""What a layer caches and how its weights are split, family by family."""

from collections import Counter

import pytest

from memserve.model import load, reader


def kinds(spec):
    return Counter(block.mixer.kind for block in spec.blocks)


def weight(block, name):
    return next(w for w in block.weights if w.name == name)


def test_grouped_query_attention():
    block = load("llama-70b").blocks[0]
    assert (block.mixer.kind, block.mixer.heads, block.mixer.kv_heads, block.mixer.head_dim) == (
        "full",
        64,
        8,
        128,
    )
    assert weight(block, "self_attn.k_proj").shard == "kv"
    assert weight(block, "self_attn.q_proj").shard == "column"
    assert weight(block, "self_attn.o_proj").shard == "row"
    assert weight(block, "input_layernorm").shard == "replicated"
    assert not weight(block, "input_layernorm").linear


def test_equal_layers_are_one_object():
    spec = load("llama-70b")
    assert len(spec.blocks) == 80
    assert len({id(block) for block in spec.blocks}) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gemma-2-9b", {"sliding": 21, "full": 21}),
        ("google/gemma-3-27b-it", {"sliding": 52, "full": 10}),
        ("mistralai/Mistral-7B-v0.1", {"sliding": 32}),
        ("mistralai/Mistral-7B-Instruct-v0.3", {"full": 32}),
        ("qwen2.5-7b", {"full": 28}),
        ("gpt-oss-120b", {"sliding": 18, "full": 18}),
        ("llama-4-scout", {"chunked": 36, "full": 12}),
        ("deepseek-v3", {"mla": 61}),
        ("Qwen/Qwen3.6-27B", {"linear": 48, "full": 16}),
        ("cyankiwi/Kimi-Linear-48B-A3B-Instruct-AWQ-4bit", {"linear": 20, "mla": 7}),
        ("state-spaces/mamba-1.4b-hf", {"mamba": 48}),
        ("ai21labs/Jamba-v0.1", {"mamba": 28, "full": 4}),
        ("bge-m3", {"full": 24}),
    ],
)
def test_kinds_of_layers(name, expected):
    assert kinds(load(name)) == expected


def test_latent_attention_is_whole_on_every_card():
    block = load("deepseek-v3").blocks[0]
    assert (block.mixer.kv_lora_rank, block.mixer.rope_dim, block.mixer.kv_heads) == (512, 64, 1)
    assert weight(block, "self_attn.kv_a_proj_with_mqa").shard == "replicated"
    assert weight(block, "self_attn.kv_b_proj").shard == "column"
    assert load("deepseek-v3.2").blocks[0].mixer.index_dim == 128


def test_layers_with_sizes_of_their_own():
    gemma = load("google/gemma-4-12B-it")
    assert {(b.mixer.kind, b.mixer.kv_heads, b.mixer.head_dim) for b in gemma.blocks} == {
        ("sliding", 8, 256), ("full", 1, 512),
    }  # fmt: skip
    assert {b.mixer.heads for b in load("laguna-s-2.1").blocks} == {48, 72}


def test_shared_caches():
    config = {
        "model_type": "gemma3n_text", "architectures": ["Gemma3nForCausalLM"], "hidden_size": 64,
        "vocab_size": 128,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "intermediate_size": 128, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 128,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    }  # fmt: skip
    spec = reader.from_config(config)
    assert [block.mixer.shares_cache_of for block in spec.blocks] == [None, None, 0, 1]


def test_experts():
    spec = load("deepseek-v3")
    assert [block.experts for block in spec.blocks[:4]] == [0, 0, 0, 256]
    block = spec.blocks[-1]
    gate = weight(block, "mlp.experts.gate_proj")
    assert (gate.count, gate.shape, gate.shard, gate.part) == (256, (2048, 7168), "expert", "expert")
    assert block.experts_per_token == 8
    assert weight(block, "mlp.gate").part == "router"
    assert spec.mtp_layers == 1


def test_recurrent_states():
    mixer = load("Qwen/Qwen3.6-27B").blocks[0].mixer
    assert mixer.state == ((10240, 3), (48, 128, 128))
    assert mixer.state_dtype == "float32"
    assert load("state-spaces/mamba-1.4b-hf").blocks[0].mixer.state == ((4096, 3), (4096, 16))


def test_towers_stand_apart():
    spec = load("google/gemma-3-4b-it")
    assert 4e8 < sum(w.parameters for w in spec.towers) < 5e8
    assert spec.vocabulary == 262208
    assert all("vision" not in w.name for block in spec.blocks for w in block.weights)


def test_encoders():
    assert load("bge-m3").encoder_only
    assert load("facebook/contriever").encoder_only
    assert not load("e5-mistral").encoder_only
    whisper = load("openai/whisper-large-v3")
    assert (len(whisper.encoder), len(whisper.blocks)) == (32, 32)


@pytest.mark.parametrize(
    ("name", "gib"),
    [
        ("llama-4-scout", 2.5),  # observed: 2.53
        ("google/gemma-3-4b-it", 0.5625),  # observed: 0.57, two tables, one of them stretched eight times
        ("llama-3.1-8b", 0.03125),  # observed: 0.03
        ("bge-m3", 0.0),
    ],
)
def test_rotary_tables(name, gib):
    spec = load(name)
    assert spec.rope_dim * spec.rope_rows * 2 / 2**30 == pytest.approx(gib)


@pytest.mark.parametrize(
    ("scaling", "rows"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 4096),
        ({"rope_type": "dynamic", "factor": 2.0}, 2048),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}, 2048),
        ({"rope_type": "longrope", "original_max_position_embeddings": 256}, 1280),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 512}, 1024),
        ({"rope_type": "default", "mrope_section": [16, 24, 24]}, 4096),
        ({"rope_type": 3, "factor": "many"}, 1024),
        (None, 1024),
    ],
)
def test_rotary_rows(scaling, rows):
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256, "max_position_embeddings": 1024,
        "rope_scaling": scaling,
    }  # fmt: skip
    assert reader.from_config(config).rope_rows == rows
