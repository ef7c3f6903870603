"""Bytes per rank: formats, splits, padding, what is left out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from starts import GIB, model

from memserve.memory import formats
from memserve.memory.weights import (
    Ignored,
    Split,
    allocated,
    partition,
    rank_share,
    rope_bytes,
    stage_bytes,
    storage,
    within,
)
from memserve.model.spec import Weight

LLAMA = "meta-llama--Llama-3.1-8B-Instruct"


def whole(tensor, **more):
    return Split(tensor, tensor, tensor, **more)


def test_sixteen_bit_weights_are_parameters_times_two():
    spec = model(LLAMA)
    held = storage(spec, "none", "bfloat16")
    assert stage_bytes(spec, Split(), held)[0] == pytest.approx(spec.parameters * 2, rel=1e-3)


def test_float32_doubles_them():
    spec = model(LLAMA)
    sixteen, full = (
        stage_bytes(spec, Split(), storage(spec, "none", dtype))[0] for dtype in ("float16", "float32")
    )
    assert full == pytest.approx(2 * sixteen, rel=1e-3)


def test_four_bit_keeps_embeddings_and_head_in_sixteen():
    spec = model(LLAMA)
    four = stage_bytes(spec, Split(), storage(spec, "gptq", "float16"))[0] / GIB
    assert four == pytest.approx(5.35, abs=0.03)
    assert four > spec.parameters * 0.5 / GIB * 1.35


@pytest.mark.parametrize(
    ("method", "bits"),
    [("gptq", 4.16), ("awq", 4.16), ("w4a16", 4.125), ("nf4", 4.127), ("fp8", 8.01), ("nvfp4", 4.5)],
)
def test_bits_per_weight_with_what_stands_beside(method, bits):
    form = formats.named(method)
    rows, columns = 4096, 4096
    size = rows * columns * form.bits / 8 + form.beside(rows, columns)
    assert size * 8 / (rows * columns) == pytest.approx(bits, abs=0.02)


def test_mxfp4_covers_experts_only():
    form = formats.named("mxfp4")
    assert form.replaces(Weight("mlp.experts.up_proj", "expert", (8, 8), "expert", 4, linear=True))
    assert not form.replaces(Weight("self_attn.q_proj", "attention", (8, 8), "column", linear=True))


def test_kv_heads_are_replicated_once_ranks_exceed_them():
    key = Weight("self_attn.k_proj", "attention", (1024, 4096), "kv", linear=True)
    assert rank_share(key, whole(4), kv_heads=8) == (1, (256, 4096))
    assert rank_share(key, whole(16), kv_heads=8) == (1, (128, 4096))


def test_vocabulary_is_padded_to_64_before_it_is_split():
    head = Weight("lm_head", "head", (49155, 4096), "vocab", linear=True)
    assert rank_share(head, whole(1)) == (1, (49216, 4096))
    assert rank_share(head, whole(2)) == (1, (24608, 4096))


def test_experts_are_sliced_or_dealt_whole():
    expert = Weight("mlp.experts.up_proj", "expert", (768, 2048), "expert", 128, linear=True)
    assert rank_share(expert, whole(4)) == (128, (192, 2048))
    assert rank_share(expert, whole(4, whole_experts=True)) == (32, (768, 2048))


def test_padded_experts_round_inner_and_hidden_width_up():
    down = Weight("mlp.experts.down_proj", "expert", (2880, 2880), "expert", 128, linear=True)
    assert rank_share(down, whole(4), pad=(128, 256)) == (128, (3072, 768))


def test_the_remainder_of_layers_goes_to_the_last_stages_but_one():
    assert partition(61, 2) == (31, 30)
    assert partition(62, 4) == (15, 16, 16, 15)


@given(layers=st.integers(1, 200), stages=st.integers(1, 16))
def test_a_partition_deals_every_layer(layers, stages):
    assert sum(partition(layers, stages)) == layers


def test_stages_add_up_and_tied_embeddings_stand_on_both_ends():
    spec = model(LLAMA)
    held = storage(spec, "none", "bfloat16")
    assert sum(stage_bytes(spec, Split(), held, 4)) == pytest.approx(sum(stage_bytes(spec, Split(), held)))
    tied = model("google--gemma-2-9b-it")
    held = storage(tied, "none", "bfloat16")
    embeddings = tied.vocabulary * tied.hidden * 2
    split, alone = sum(stage_bytes(tied, Split(), held, 2)), sum(stage_bytes(tied, Split(), held))
    assert split - alone == pytest.approx(embeddings, rel=0.01)


def test_the_rotary_table_counts():
    assert rope_bytes(model(LLAMA)) == 131072 * 128 * 2


def test_torch_counts_whole_segments():
    mebi = 1 << 20
    assert allocated(5 * mebi) == 5 * mebi
    assert allocated(231 * mebi) == 232 * mebi
    assert allocated(64.75 * mebi) == 64.75 * mebi


@given(size=st.floats(0, 1e12))
def test_an_allocation_never_shrinks_and_wastes_a_mebibyte_at_most(size):
    assert size <= allocated(size) <= size + (1 << 20)


@pytest.mark.parametrize(
    ("pattern", "name", "layer", "held"),
    [
        ("lm_head", "lm_head", None, True), ("mlp.gate", "mlp.gate", 3, True),
        ("gate", "mlp.gate_proj", 3, False), ("re:.*mlp.gate$", "mlp.gate", 7, True),
        ("re:.*mlp.gate$", "mlp.gate_proj", 7, False), ("model.layers.3.mlp.gate", "mlp.gate", 3, True),
        ("model.layers.3.mlp.gate", "mlp.gate", 4, False),
        ("model.layers.*.self_attn", "self_attn.q_proj", 9, True),
        ("model.language_model.layers.0.linear_attn.in_proj*", "linear_attn.in_proj_qkv", 0, True),
        ("re:(", "mlp.gate", 0, False),
    ],
)  # fmt: skip
def test_what_a_config_leaves_in_sixteen_bit(pattern, name, layer, held):
    assert Ignored([pattern]).holds(name, layer) is held


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_pattern_is_read(pattern, name):
    assert Ignored([pattern]).holds(name, 0) in (True, False)
    assert within(name, name) or "*" in name or name
