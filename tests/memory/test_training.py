import pytest
from hypothesis import given
from hypothesis import strategies as st

from memserve import model as models
from memserve.errors import InvalidInput
from memserve.hardware import parse
from memserve.memory.training import Keeping, for_machine, layer_bytes, need
from memserve.model.spec import Block, Mixer, ModelSpec, Weight

GIB = 1024**3
H, Q, KV, INNER = 256, 256, 128, 688


def matrix(name, part, rows, columns, shard, count=1):
    return Weight(name, part, (rows, columns), shard, count, linear=True)


def norm(name, width=H):
    return Weight(name, "norm", (width,))


ATTENTION = (
    matrix("self_attn.q_proj", "attention", Q, H, "column"),
    matrix("self_attn.k_proj", "attention", KV, H, "kv"),
    matrix("self_attn.v_proj", "attention", KV, H, "kv"),
    matrix("self_attn.o_proj", "attention", H, Q, "row"),
    norm("input_layernorm"),
    norm("post_attention_layernorm"),
)
MLP = (
    matrix("mlp.gate_proj", "mlp", INNER, H, "column"),
    matrix("mlp.up_proj", "mlp", INNER, H, "column"),
    matrix("mlp.down_proj", "mlp", H, INNER, "row"),
)
EXPERTS = (
    matrix("mlp.experts.gate_proj", "expert", INNER, H, "expert", 4),
    matrix("mlp.experts.up_proj", "expert", INNER, H, "expert", 4),
    matrix("mlp.experts.down_proj", "expert", H, INNER, "expert", 4),
)
HEAD_NORMS = (norm("self_attn.q_norm", 32), norm("self_attn.k_norm", 32))
MIXER = Mixer("full", heads=8, kv_heads=4, head_dim=32)


def tiny(weights, layers=2, vocabulary=64, **block):
    one = Block(MIXER, weights, **block)
    table = Weight("embed_tokens", "embedding", (vocabulary, H), "vocab")
    return ModelSpec("tiny", "Tiny", "tiny", (one,) * layers, (table,), (norm("norm"),), hidden=H,
                     intermediate=INNER, vocabulary=vocabulary)  # fmt: skip


def bulk(parameters):
    """A model of that many parameters in one matrix, for the formulas that know no shapes."""
    return ModelSpec("bulk", "Bulk", "bulk", (), (Weight("w", "mlp", (parameters,)),), (), hidden=1)


@pytest.mark.parametrize(("zero", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_zero_paper_figure_1(zero, gigabytes):
    """Rajbhandari et al. 2019, figure 1: 7.5B parameters, 64 data-parallel cards, Adam, mixed precision."""
    asked = need(bulk(7_500_000_000), zero=zero, cards=64, precision="float16")
    assert asked.states / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_deepspeed_estimators_bound_ours_from_above():
    """DeepSpeed memory docs: ZeRO-2 needs 4 P + 16 P / N, ZeRO-3 needs 18 P / N + 4 x the largest layer.

    They count a float32 gradient too, which the engine holds only while it steps.
    """
    parameters = 2_851_000_000
    assert (4 * parameters + 16 * parameters / 8) / GIB == pytest.approx(15.93, abs=0.01)  # as documented
    two, three = (need(bulk(parameters), zero=stage, cards=8, precision="mixed").states for stage in (2, 3))
    assert two <= 4 * parameters + 16 * parameters / 8
    assert 0.88 <= three / (18 * parameters / 8) <= 1


def test_activations_of_a_llama_layer_by_hand():
    """Per token: two norms (4 + 2 + 2) h, q and its output 4 q, k and v 4 kv, the gated MLP 8 f; 16 bit."""
    by_hand = 16 * H + 4 * Q + 4 * KV + 8 * INNER
    spec = tiny(ATTENTION + MLP)
    assert layer_bytes(spec, spec.blocks[0], Keeping(2)) == by_hand


@pytest.mark.parametrize(
    ("weights", "block", "measured"),
    [
        (ATTENTION + MLP, {}, 11176),
        (ATTENTION + MLP + HEAD_NORMS, {}, 13528),
        (ATTENTION + EXPERTS, {"experts": 4, "experts_per_token": 2}, 18828),
    ],
    ids=["llama", "qwen3", "mixtral"],
)
def test_activations_against_torch(weights, block, measured):
    """Bytes a token and layer that autograd saved: torch 2.13, transformers 5.23, SDPA, bfloat16."""
    spec = tiny(weights, **block)
    assert layer_bytes(spec, spec.blocks[0], Keeping(2)) == pytest.approx(measured, rel=0.01)


@pytest.mark.parametrize(("targets", "measured"), [(None, 17096), (("q_proj", "v_proj"), 9928)])
def test_adapter_activations_against_torch(targets, measured):
    """The same with peft 0.21, rank 16, no dropout; less than full training where few layers are adapted."""
    spec = tiny(ATTENTION + MLP, layers=1)
    asked = need(spec, method="lora", lora_targets=targets, lora_rank=16, batch=2, sequence=512)
    assert asked.activations / 1024 == pytest.approx(measured, rel=0.01)


def test_checkpointing_keeps_the_layers_inputs_and_computes_one_again():
    spec = tiny(ATTENTION + MLP, layers=48, vocabulary=64)
    plain, saved = (need(spec, checkpointing=flag, sequence=1024) for flag in (False, True))
    per_layer = plain.activations / 48
    expected = 48 * 1024 * H * 2 + max(0, per_layer - saved.logits)
    assert saved.activations == pytest.approx(expected, rel=1e-6)
    assert saved.states == plain.states


def test_logits_of_a_large_vocabulary():
    spec = models.load("llama-3.1-8b")
    asked = need(spec, batch=1, sequence=2048)
    assert asked.logits == 13 * 2048 * 128256


def test_full_training_of_7b_takes_16_bytes_a_parameter():
    for precision, size in (("mixed", 16), ("float32", 16), ("bfloat16", 8), ("pure-bf16", 8)):
        asked = need(models.load("llama-2-7b"), precision=precision)
        assert asked.states == pytest.approx(6_738_415_616 * size)


PEFT = ({"method": "lora", "lora_rank": 32, "lora_targets": ("q_proj", "v_proj")}, 20.76), ({}, 36.20)
"""GiB at most on an L40S: peft's method_comparison, MetaMathQA, Llama-3.2-3B in bfloat16 with AdamW."""


@pytest.mark.parametrize(("how", "measured"), PEFT, ids=["lora", "full"])
def test_pefts_table(how, measured):
    """Four sequences of at most 768 tokens: within 5 %, and rather more than less."""
    told = need(models.load("llama-3.2-3b"), batch=4, sequence=768, **how).total / GIB
    assert 1 <= told / measured <= 1.05


def test_a_loss_finds_no_gradients_and_a_step_no_activations():
    """Never below the one moment or the other, and little above: a fifth of what both had in one place."""
    spec = models.load("llama-3.2-3b")
    for sequence in (64, 512, 4096):
        asked = need(spec, sequence=sequence)
        loss = asked.weights + asked.optimizer_states + asked.activations + asked.logits
        step = asked.states + asked.step
        least = max(loss, step) + asked.workspace
        assert least <= asked.total <= least + asked.shared / 4 + 1


def test_lora_counts():
    """Rank 8 on q and v of Llama-2-7B: 32 layers x 2 x 8 x (4096 + 4096) = 4,194,304 (peft's own print)."""
    asked = need(models.load("llama-2-7b"), method="lora", lora_rank=8, lora_targets=("q_proj", "v_proj"))
    assert asked.trainable == 4_194_304
    assert asked.gradients == 4 * 4_194_304
    assert asked.optimizer_states == 8 * 4_194_304


def test_qlora_of_a_65b_class_model_fits_48_gb():
    """Dettmers et al. 2023: QLoRA fine-tunes a 65B model on one 48 GB card."""
    asked = need(models.load("llama-2-70b"), method="qlora", optimizer="adamw8bit", sequence=512,
                 checkpointing=True, lora_rank=64)  # fmt: skip
    assert 33 * GIB < asked.weights < 40 * GIB
    assert asked.total < 47.5 * GIB


def test_optimizers_in_their_order():
    spec = models.load("llama-2-7b")
    states = {name: need(spec, optimizer=name, precision="mixed").optimizer_states for name in
              ("adamw", "sgd-momentum", "adamw8bit", "adafactor", "sgd")}  # fmt: skip
    assert list(states.values()) == sorted(states.values(), reverse=True)
    assert states["sgd"] == 4 * spec.parameters  # the float32 copy of mixed precision
    assert need(spec, optimizer="sgd", precision="fp32").optimizer_states == 0
    assert need(spec, precision="pure-bf16").states == 8 * spec.parameters


def test_the_least_sharding_that_fits():
    spec = models.load("llama-3.1-8b")
    machine = parse("8xA100-80GB")
    chosen = for_machine(spec, machine, checkpointing=True, precision="mixed")
    assert chosen.zero == 1 and chosen.total <= machine.card.memory
    tight = for_machine(spec, parse("2xL4"), checkpointing=True, precision="mixed")
    assert tight.zero == 3 and "does not fit" in tight.notes[-1]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic': one of full, lora, qlora"),
        ({"optimizer": "adam9"}, "unknown optimizer"),
        ({"precision": "int3"}, "unknown precision"),
        ({"zero": 4}, "unknown zero 4"),
        ({"cards": 0}, "cards must be a whole number above 0"),
        ({"batch": -1}, "batch must be"),
        ({"sequence": 2.5}, "sequence must be"),
        ({"method": "lora", "lora_targets": ("nothing",)}, "matches lora_targets"),
    ],
)
def test_malformed_wishes(wish, message):
    with pytest.raises(InvalidInput, match=message):
        need(tiny(ATTENTION + MLP), **wish)


@given(zero=st.integers(0, 3), cards=st.integers(1, 64), batch=st.integers(1, 8),
       method=st.sampled_from(["full", "lora", "qlora"]))  # fmt: skip
def test_more_sharding_never_takes_more_states(zero, cards, batch, method):
    spec = tiny(ATTENTION + MLP)
    one = need(spec, zero=zero, cards=cards, batch=batch, method=method)
    more = need(spec, zero=min(3, zero + 1), cards=cards, batch=batch, method=method)
    assert more.states <= one.states
    assert one.total > 0
