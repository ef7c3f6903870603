"""vLLM's start-up: pages and groups as its own code forms them, peaks and defaults by version and card."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from counting import calls
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from starts import GIB, h100, model

from memserve.engines.deployment import Deployment, Layout
from memserve.hardware import parse
from memserve.memory.kv import LayerCache
from memserve.model.reader import from_config
from memserve_vllm.memory import accountant
from memserve_vllm.memory_allocator import reserved_bytes
from memserve_vllm.memory_pages import PagePlan, pool
from memserve_vllm.memory_run import Run

LLAMA = "meta-llama--Llama-3.1-8B-Instruct"
FULL = LayerCache("full", 4096)


def deployment(version="0.19.0", **more):
    return Deployment("vllm", version, **{"quantization": "none", "dtype": "bfloat16", **more})


def window(size, width=4096):
    return LayerCache("window", width, size)


# ---------------------------------------------------------------- pages


def test_one_kind_of_layer_makes_one_group():
    formed = pool([FULL] * 32, PagePlan())
    assert len(formed.groups) == 1
    assert formed.block_bytes == 32 * 4096 * 16
    assert formed.tokens(formed.blocks(GIB), 8192, 8192) == GIB // formed.block_bytes * 16


def test_gemma_2_halves_its_tokens():
    """23 full and 23 sliding layers: two groups of 23, so 7,335 blocks are 58,672 tokens."""
    formed = pool([FULL, window(4096)] * 23, PagePlan())
    assert (len(formed.groups), formed.layers) == (2, 23)
    assert formed.tokens(7335, 8192, 8192) == 58_672


def test_gemma_3_pads_its_groups():
    """10 full and 52 sliding layers: seven groups of 10; 15,997 blocks are 36,560 tokens, 4.46 requests."""
    formed = pool([FULL] * 10 + [window(1024)] * 52, PagePlan())
    assert (len(formed.groups), formed.layers) == (7, 10)
    assert formed.tokens(15_997, 8192, 8192) == 36_560
    assert 15_997 / formed.blocks_per_request(8192, 8192) == pytest.approx(4.46, abs=0.005)


def test_nearly_equal_kinds_share_the_larger_number():
    formed = pool([FULL] * 13 + [window(128)] * 12, PagePlan(near=1.25))
    assert (len(formed.groups), formed.layers) == (2, 13)


def test_before_groups_windows_counted_as_full():
    formed = pool([FULL, window(4096)] * 23, PagePlan(grouped=False))
    assert (len(formed.groups), formed.block_bytes) == (1, 46 * 4096 * 16)


def test_recurrent_states_decide_the_block():
    """Qwen3.5-27B at tp 4: states of 801,792 bytes need blocks of 784 tokens; 7 GiB are 114,464 tokens."""
    states = [LayerCache("state", state_bytes=801_792)] * 48
    formed = pool([LayerCache("full", 1024)] * 16 + states, PagePlan())
    assert formed.groups[0].block == 784
    blocks = formed.blocks(round(7.0 * GIB))
    assert formed.tokens(blocks, 32_768, 2048) == 114_464
    assert 584 / formed.blocks_per_request(32_768, 2048) == pytest.approx(12.98, abs=0.01)


def test_from_0_20_1_tokens_are_concurrency_times_length():
    plan = PagePlan(tokens_from_concurrency=True, states=2)
    states = [LayerCache("state", state_bytes=3_207_168)] * 48
    formed = pool([LayerCache("full", 4096)] * 16 + states, plan)
    assert formed.blocks_per_request(4096, 4096) == 12
    assert formed.tokens(857, 4096, 4096) == 292_522


def test_wider_layers_decide_the_page():
    """Gemma 4: global layers of another width; narrower ones take more tokens per page."""
    formed = pool([LayerCache("full", 8192)] * 2 + [window(1024, 4096)] * 10, PagePlan())
    assert {group.block for group in formed.groups} == {16, 32}
    assert len({group.page for group in formed.groups}) == 1


@given(
    full=st.integers(0, 40), sliding=st.integers(0, 80), size=st.integers(1, 8192),
    available=st.integers(0, 10**12), length=st.integers(1, 200_000),
)  # fmt: skip
def test_a_pool_never_promises_more_than_its_bytes(full, sliding, size, available, length):
    formed = pool([FULL] * full + [window(size)] * sliding, PagePlan())
    blocks = formed.blocks(available)
    assert blocks * formed.block_bytes <= available
    assert formed.tokens(blocks, length, 8192) >= 0


# ---------------------------------------------------------------- defaults and versions


@pytest.mark.parametrize(
    ("version", "gpus", "sequences", "tokens"),
    [
        ("0.19.0", "H100", 1024, 8192), ("0.19.0", "A100-80GB", 256, 2048), ("0.19.0", "RTX3090", 256, 2048),
        ("0.8.5", "A100-80GB", 1024, 8192), ("0.6.4", "H100", 256, 8192), ("0.8.5", "T4", 256, 8192),
    ],
)  # fmt: skip
def test_batch_defaults_by_card(version, gpus, sequences, tokens):
    found = Run(accountant.facts, model(LLAMA), parse(gpus), deployment(version)).batch
    assert (found.sequences, found.tokens) == (sequences, tokens)


def test_long_contexts_turned_chunked_prefill_on_in_v0():
    spec, card = model(LLAMA), parse("RTX3090")
    asked = ((29_000, None), (35_000, 8), (35_000, None))
    starts = (deployment("0.6.4", context=n, max_sequences=s) for n, s in asked)
    peaks = [accountant.account(spec, card, start).activation / GIB for start in starts]
    assert peaks == pytest.approx([2.99, 0.06, 1.19], abs=0.02)  # the last: 256 sequences are sorted


def test_v0_encoded_one_item_for_every_sequence_and_v1_groups_what_the_decoder_looks_back_at():
    spec, card = model("whisper-large-v3"), parse("RTX4090")
    starts = (deployment(v, context=448, max_sequences=64) for v in ("0.10.1", "0.10.2", "0.20.1"))
    old, new, newest = (accountant.account(spec, card, start) for start in starts)
    assert old.activation / GIB == pytest.approx(2.62, abs=0.02)
    assert new.activation < old.activation / 4
    token = old.kv_cache / old.kv_tokens
    assert new.kv_cache / new.kv_tokens == pytest.approx(2 * token, rel=0.001)
    assert newest.kv_cache / newest.kv_tokens == pytest.approx((28 + 94) / 28 * token, rel=0.001)


def test_data_parallel_ranks_of_latent_attention_unpack_all_heads_and_speak_over_their_experts():
    """64 Ki tokens of context x 16 heads x 256 numbers in 16 bit are 0.5 GiB."""
    spec = model("DeepSeek-V2-Lite-Chat")
    at = {"max_sequences": 16, "max_batched_tokens": 2048, "context": 16384}
    old, new = (accountant.account(spec, h100(), deployment(v, **at)) for v in ("0.10.2", "0.12.0"))
    assert old.activation < GIB // 4 < GIB // 2 < new.activation
    whole, eighth = (
        accountant.account(spec, h100(8), deployment("0.19.0", layout=layout, **at))
        for layout in (Layout(data=8, expert=True), Layout(tensor=8))
    )
    assert whole.activation > eighth.activation + 0.4 * GIB
    assert whole.non_torch == eighth.non_torch


def test_sparse_latents_reserve_their_workspace_when_they_load():
    spec, at = model("GLM-5.2-W4A16"), {"context": 400_000, "kv_dtype": "fp8", "layout": Layout(tensor=8)}
    old, new = (accountant.account(spec, h100(8), deployment(v, **at)) for v in ("0.12.0", "0.16.0"))
    assert new.weights - old.weights == 5 * 400_000 * 576 * 2


def test_the_default_share_of_the_card_rose_in_0_20():
    old, new = (accountant.account(model(LLAMA), h100(), deployment(v)) for v in ("0.19.1", "0.20.0"))
    assert (old.usable / old.total, new.usable / new.total) == pytest.approx((0.90, 0.92))


def test_graphs_enter_the_budget_in_0_20():
    for version, inside in (("0.19.1", False), ("0.20.0", True)):
        found = accountant.account(model(LLAMA), h100(), deployment(version))
        rest = found.usable - found.weights - found.activation - found.non_torch - found.kv_cache
        assert (rest >= found.graphs > 0) is inside


def test_eager_captures_nothing():
    assert accountant.account(model(LLAMA), h100(), deployment(eager=True)).graphs == 0


# ---------------------------------------------------------------- the whole


@given(
    util=st.floats(0.05, 1.0), context=st.integers(1, 131_072), tensor=st.sampled_from([1, 2, 4, 8]),
    stages=st.sampled_from([1, 2]), sequences=st.integers(1, 2048),
    quantization=st.sampled_from(["none", "gptq", "fp8"]),
)  # fmt: skip
def test_parts_stay_within_the_budget_of_what_runs(util, context, tensor, stages, sequences, quantization):
    found = accountant.account(
        model(LLAMA), h100(tensor * stages),
        deployment(utilization=util, context=context, max_sequences=sequences, quantization=quantization,
                   layout=Layout(tensor, stages)),
    )  # fmt: skip
    assert found.usable <= found.total + 1
    if found.outcome == "runs":
        assert found.weights + found.activation + found.non_torch + found.kv_cache <= found.usable
        assert found.max_concurrency >= 1
    else:
        assert found.reasons


@given(low=st.integers(1, 100_000), more=st.integers(1, 30_000))
def test_a_longer_context_is_never_easier(low, more):
    spec, card = model(LLAMA), parse("RTX3090")
    short, long = (accountant.account(spec, card, deployment(context=n)) for n in (low, low + more))
    assert short.outcome == "runs" or long.outcome != "runs"


def test_the_largest_context_is_the_last_that_runs():
    spec, card = model(LLAMA), parse("RTX3090")
    largest = accountant.largest_context(spec, card, deployment())
    assert 0 < largest < spec.max_context
    assert accountant.account(spec, card, deployment(context=largest)).outcome == "runs"
    assert accountant.account(spec, card, deployment(context=largest + 16)).outcome == "refused"


def test_a_fixed_pool_is_taken_as_asked():
    assert accountant.account(model(LLAMA), h100(), deployment(kv_bytes=8 * GIB)).kv_cache == 8 * GIB


def test_weights_that_exceed_the_card_are_out_of_memory():
    found = accountant.account(model("deepseek-ai--DeepSeek-R1"), h100(), deployment())
    assert found.outcome == "out_of_memory"
    assert "exceed" in found.reasons[0]


def test_an_account_is_little_work():
    spec, machine = model("deepseek-ai--DeepSeek-R1"), h100(8)
    accountant.account(spec, machine, deployment(layout=Layout(8), context=4096))
    another = deployment(layout=Layout(8), context=4097)
    assert calls(lambda: accountant.account(spec, machine, another)) < 5000


def test_offloaded_weights_leave_the_card():
    plain = accountant.account(model(LLAMA), h100(), deployment())
    moved = accountant.account(
        model(LLAMA), h100(), replace(deployment(), options=(("cpu-offload-gb", "4"),))
    )
    assert plain.weights - moved.weights == 4 * GIB


def test_an_encoder_keeps_no_cache():
    bert = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": 1024, "num_hidden_layers": 24,
        "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 30522,
        "max_position_embeddings": 512,
    }  # fmt: skip
    spec = from_config(bert)
    found = accountant.account(spec, parse("T4"), deployment(dtype="float16", context=512))
    assert (found.outcome, found.kv_cache, found.kv_tokens) == ("runs", 0, 0)


def activation(name, version="0.11.0", **flags):
    options = tuple((flag.replace("_", "-"), value) for flag, value in flags.items())
    return accountant.account(model(name), h100(), deployment(version, options=options)).activation


def test_what_a_prompt_may_hold_bounds_the_encoders_profile():
    """A video pads the outputs up to 0.16; no more items are profiled than all prompts may hold."""
    vl = "Qwen--Qwen3-VL-30B-A3B-Instruct"
    whole = activation(vl)
    image = activation(vl, limit_mm_per_prompt='{"image": 1, "video": 0}')
    none = activation(vl, limit_mm_per_prompt='{"image": 0, "video": 0}')
    assert whole - image > 1.5 * GIB and image > none
    assert (
        none
        == activation(vl, limit_mm_per_prompt="image=0,video=0")
        == activation(vl, skip_mm_profiling="true")
    )
    assert image == activation(vl, limit_mm_per_prompt='{"image": {"count": 1, "width": 512}, "video": 0}')
    gemma = "google--gemma-3-4b-it"
    assert activation(gemma) >= activation(gemma, limit_mm_per_prompt='{"image": 1}') > 0


def test_the_largest_captured_batch_is_what_the_command_says():
    few = deployment("0.20.0", options=(("max-cudagraph-capture-size", "4"),))
    usual, small = (
        accountant.account(model(LLAMA), h100(), one).graphs for one in (deployment("0.20.0"), few)
    )
    assert small < usual / 5


def test_an_encoder_that_no_card_shares_is_whole_on_each():
    vl = model("Qwen--Qwen3-VL-30B-A3B-Instruct")
    tower = sum(weight.parameters for weight in vl.towers) * 2

    def weights(**more):
        return accountant.account(vl, h100(4), deployment("0.19.0", layout=Layout(tensor=4), **more)).weights

    added = weights(options=(("mm-encoder-tp-mode", "data"),)) - weights()
    assert 0.6 * tower < added < 0.76 * tower


def test_deepstack_has_a_buffer_for_each_of_its_layers():
    vl = "Qwen--Qwen3-VL-30B-A3B-Instruct"
    few, many = (
        accountant.account(model(vl), h100(), deployment("0.19.0", max_batched_tokens=tokens)).weights
        for tokens in (1024, 8192)
    )
    assert many - few == 3 * (8192 - 1024) * 2048 * 2


# ---------------------------------------------------------------- before 0.6.4: what torch has reserved


def reserved(version, ranks, groups, hidden, inner, **asked):
    """What an attention and a dense FFN of so many heads of 128 make torch reserve over 32,768 tokens."""
    heads = hidden // ranks
    spec = model("Llama-3.1-8B-Instruct")
    mixer = replace(spec.blocks[0].mixer, heads=hidden, kv_heads=max(hidden // groups, 1), head_dim=128)
    block = replace(spec.blocks[0], mixer=mixer)
    spec = replace(spec, hidden=hidden * 128, intermediate=inner * 128 * ranks, blocks=(block,) * 3)
    whole = deployment(version, context=32_768, layout=Layout(ranks), **asked)
    joined = heads + 2 * max(max(hidden // groups, 1) // ranks, 1)
    usual = 3 * hidden + joined + heads + 2 * inner + (inner if inner > joined else 0)
    return reserved_bytes(accountant.run(spec, h100(ranks), whole)), usual * 128 * 32_768 * 2


@given(st.integers(1, 16), st.sampled_from((1, 2, 4, 8)), st.sampled_from((1, 4, 8)), st.floats(2.2, 4.0))
def test_a_dense_layer_reserves_what_is_alive_at_once(eighths, ranks, groups, wider):
    """models/llama.py of 0.6.3: in, normed, projected, joined, attended, gate and up; their product fits
    where queries, keys and values lay, if they were wider."""
    hidden = 8 * eighths
    told, usual = reserved("0.6.3", ranks, groups, hidden, round(hidden * wider / ranks))
    assert told == pytest.approx(usual, rel=0.15)


def test_awq_made_eight_products_up_to_0_2_7_and_unpacks_a_matrix_since():
    """The widest is gate and up; Marlin's kernels, which multiply what is packed, came in 0.5.3."""
    eight, one, marlin = (
        reserved(version, 1, 1, 32, 86, quantization="awq")[0] for version in ("0.2.7", "0.3.0", "0.5.4")
    )
    assert eight - marlin > 8 * 2 * 86 * 128 * 32_768 * 2
    assert 0 < one - marlin <= 2 * 86 * 128 * 32 * 128 * 2


def test_what_the_second_runner_counts_in_is_no_longer_free_from_027_on():
    spec = model("Llama-3.1-8B-Instruct")
    counted = {
        version: accountant.account(spec, h100(), deployment(version, context=8192)).non_torch
        for version in ("0.26.0", "0.27.0")
    }
    assert counted["0.27.0"] - counted["0.26.0"] == int(4.125 * 1024 * spec.vocabulary)
