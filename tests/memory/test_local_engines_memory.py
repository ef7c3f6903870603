"""transformers, LMDeploy and llama.cpp: the engines whose start-ups nobody published in numbers."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from extras import need
from hypothesis import given
from hypothesis import strategies as st

from memserve import model as models
from memserve.engines.deployment import Deployment, Layout
from memserve.hardware import parse
from memserve.memory.calibration import parse_log
from memserve.memory.formats import named
from memserve.model.catalogue import formats
from memserve.model.spec import Quantization
from memserve_hf.memory import accountant as hf
from memserve_llamacpp.memory import accountant as llamacpp
from memserve_llamacpp.memory import host_layers
from memserve_lmdeploy.memory import accountant as lmdeploy

GIB, MIB = 1024**3, 1024**2
WEIGHTS = (
    Path(os.environ.get("MEMSERVE_ENGINES") or Path.home() / ".cache" / "memserve" / "engines") / "weights-1"
)
ROOMS = {"hf": (hf, "none"), "lmdeploy": (lmdeploy, "none"), "llamacpp": (llamacpp, "gguf-q8_0")}
TOKEN_8B = 2 * 32 * 8 * 128 * 2
"""Bytes a token keeps in Llama-3.1-8B: keys and values, 32 layers, 8 heads of 128, two bytes."""


@pytest.fixture(scope="module")
def llama():
    return models.load("llama-3.1-8b")


def asked(backend, quantization="none", **own):
    return Deployment(backend, "newest", quantization, **own)


@pytest.mark.parametrize("name", ROOMS)
def test_the_parts_stay_within_the_budget(name, llama):
    room, quantization = ROOMS[name]
    found = room.account(llama, parse("L4"), asked(name, quantization))
    assert found.outcome == "runs"
    assert found.weights + found.activation + found.non_torch + found.kv_cache <= found.usable <= found.total
    assert found.free >= 0


@pytest.mark.parametrize("name", ROOMS)
def test_a_model_that_is_too_large_is_out_of_memory(name):
    room, _ = ROOMS[name]
    quantization = "gguf-f16" if name == "llamacpp" else "none"
    found = room.account(models.load("llama-70b"), parse("L4"), asked(name, quantization))
    assert found.outcome == "out_of_memory" and "GiB of weights" in found.reasons[0]


@pytest.mark.parametrize("name", ROOMS)
def test_the_largest_context_is_the_edge(name, llama):
    room, quantization = ROOMS[name]
    machine, deployment = parse("L4"), asked(name, quantization, concurrency=2)
    edge = room.largest_context(llama, machine, deployment)
    assert 0 < edge < 131072
    fits = room.account(llama, machine, replace(deployment, context=edge))
    over = room.account(llama, machine, replace(deployment, context=edge + 64))
    assert fits.outcome == "runs" and fits.max_concurrency >= 2
    assert over.outcome != "runs" or over.max_concurrency < 2


@given(context=st.integers(64, 100_000), concurrency=st.integers(1, 32), name=st.sampled_from(sorted(ROOMS)))
def test_more_is_never_cheaper(context, concurrency, name):
    room, quantization = ROOMS[name]
    model, machine = models.load("llama-3.1-8b"), parse("A100")
    one = room.account(model, machine, asked(name, quantization, context=context, concurrency=concurrency))
    more = room.account(
        model, machine, asked(name, quantization, context=2 * context, concurrency=concurrency)
    )
    assert more.max_concurrency <= one.max_concurrency
    assert more.free <= one.free or more.outcome != "runs"


def test_hf_keeps_batch_times_length(llama):
    found = hf.account(llama, parse("A100"), asked("hf", context=4096, concurrency=4))
    assert found.kv_cache == 4 * 4096 * TOKEN_8B
    assert found.kv_tokens == 0  # no pool is reserved
    assert found.weights == pytest.approx(8_030_261_248 * 2, rel=0.002)


def test_hf_splits_layers_over_cards(llama):
    one = hf.account(llama, parse("A100"), asked("hf"))
    two = hf.account(llama, parse("2xA100"), asked("hf", layout=Layout(pipeline=2)))
    assert one.weights / 2 < two.weights < one.weights * 0.6
    assert two.kv_cache == one.kv_cache // 2


def test_hf_in_four_bits_unpacks_a_matrix_at_a_time(llama):
    plain, packed = (hf.account(llama, parse("A100"), asked("hf", method)) for method in ("none", "nf4"))
    linear = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096)
    assert packed.weights == pytest.approx((8_030_261_248 - linear) * 2 + linear * 4.127 / 8, rel=0.002)
    assert packed.activation - plain.activation == 4096 * 14336 * 2
    assert packed.usable < plain.usable  # transformers leaves bitsandbytes a tenth


def test_hf_in_float32_on_a_cpu(llama):
    half, full = (
        hf.account(llama, parse("CPU-128GB"), asked("hf", dtype=dtype)) for dtype in ("bfloat16", "float32")
    )
    assert full.weights == pytest.approx(2 * half.weights, rel=0.001)
    assert full.kv_cache == 2 * half.kv_cache


def test_lmdeploy_takes_a_share_of_what_the_weights_leave(llama):
    found = lmdeploy.account(llama, parse("A100"), asked("lmdeploy"))
    free = found.total - found.weights - found.non_torch
    assert found.kv_cache == int(0.8 * free)
    assert found.kv_tokens == found.kv_cache // (64 * TOKEN_8B) * 64
    less = lmdeploy.account(llama, parse("A100"), asked("lmdeploy", utilization=0.5))
    assert less.kv_cache == int(0.5 * free)


def test_lmdeploy_in_8_and_4_bit_kv(llama):
    """quant_policy 8 and 4: one or half a byte, and two scales and zeros of 16 bit per token and head."""
    tokens = [lmdeploy.account(llama, parse("A100"), asked("lmdeploy", kv_dtype=kind)).kv_tokens
              for kind in ("auto", "int8", "int4")]  # fmt: skip
    assert tokens[1] / tokens[0] == pytest.approx(256 / (128 + 4), rel=0.001)
    assert tokens[2] / tokens[0] == pytest.approx(256 / (64 + 4), rel=0.001)


def test_llama_70b_on_four_v100_with_gptq():
    found = lmdeploy.account(models.load("llama-70b"), parse("4xV100"),
                             asked("lmdeploy", "gptq", layout=Layout(tensor=4)))  # fmt: skip
    assert found.outcome == "runs" and 9 < found.weights / GIB < 10.5


def test_lmdeploy_671b_on_eight_h800_is_out_of_memory():
    """InternLM/lmdeploy, January 2025: DeepSeek-R1 in FP8 does not fit 8 x 80 GB."""
    found = lmdeploy.account(models.load("deepseek-r1"), parse("8xH800"),
                             asked("lmdeploy", "fp8", layout=Layout(tensor=8)))  # fmt: skip
    assert found.outcome == "out_of_memory"


def test_llamacpp_compute_buffer(llama):
    """llama.cpp prints 258.50 MiB for Llama-3-8B at a context of 8,192 with flash attention."""
    found = llamacpp.account(llama, parse("L4"), asked("llamacpp", "gguf-q4_k_m", context=8192))
    assert found.activation / 1024**2 == pytest.approx(258.5, abs=0.5)
    assert found.kv_cache == 8192 * TOKEN_8B == GIB
    assert found.kv_tokens == 8192


def test_llamacpp_file_size(llama):
    """Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf: 4,920,734,272 bytes; a GPU leaves the token table behind."""
    on_cpu = llamacpp.account(llama, parse("CPU-64GB"), asked("llamacpp", "gguf-q4_k_m"))
    on_gpu = llamacpp.account(llama, parse("L4"), asked("llamacpp", "gguf-q4_k_m"))
    assert on_cpu.weights == pytest.approx(4_920_734_272, rel=0.01)
    assert 0.25 * GIB < on_cpu.weights - on_gpu.weights < 0.35 * GIB


def test_a_gguf_of_any_type_weighs_its_own_bits(llama):
    """TQ2_0 has no row: the bits of the whole file, embeddings and all."""
    assert named("gguf-tq2_0") is None
    stored = Quantization("gguf-tq2_0", "gguf", bits=2.5, format="tq2_0")
    found = llamacpp.account(replace(llama, quantization=stored), parse("CPU-64GB"), asked("llamacpp"))
    assert found.weights == pytest.approx(llama.parameters * 2.5 / 8, rel=0.01)


def test_a_gguf_of_more_bits_weighs_more(llama):
    """Whatever the model: no level is larger than one of more bits, as one that left tables in 16 bit was."""
    bits = {name: row["bits"] for name, row in formats().items() if name.startswith("gguf-")}
    levels = sorted(bits.keys() - {"gguf-mxfp4"}, key=lambda level: bits[level])
    assert len(levels) > 20
    for model in (llama, models.load("qwen3-14b"), models.load("gemma-3-27b"), models.load("qwen3-30b-a3b")):
        machine = parse("CPU-512GB")
        sizes = [llamacpp.account(model, machine, asked("llamacpp", one)).weights for one in levels]
        assert sizes == sorted(sizes)


def test_llamacpp_moves_the_experts_that_a_model_has(llama):
    """--n-cpu-moe and --cpu-moe leave a dense model where it is."""
    mixed = models.load("qwen3-30b-a3b")
    for model, away in ((llama, (0, 0)), (mixed, (10, len(mixed.blocks)))):
        flags = (("n-cpu-moe", "10"),), (("cpu-moe", "true"),)
        assert tuple(host_layers(model, asked("llamacpp", options=one))[0] for one in flags) == away


@pytest.mark.engine("llamacpp")
@pytest.mark.parametrize("context", [1024, 4096])
def test_llamacpp_against_what_it_prints(context, capfd):
    """SmolLM2 in Q4_1 on a CPU: 92.10 MiB of weights, 22.5 KiB a token, 98.25 and 99.38 MiB to compute."""
    need("llama_cpp", "llamacpp").Llama(
        str(file := next((WEIGHTS / "smollm2-gguf").glob("*.gguf"))), n_ctx=context, verbose=True
    ).close()
    log, model = parse_log("".join(capfd.readouterr())), models.load(file)
    told = llamacpp.account(
        model, parse("CPU-64GB"), asked("llamacpp", model.quantization.method, context=context)
    )
    assert (log.backend, log.context, log.kv_bytes) == ("llamacpp", context, told.kv_cache)
    assert told.weights == pytest.approx(log.weights, rel=0.01)
    assert told.activation == pytest.approx(log.activation, rel=0.03)


@pytest.mark.engine("hf")
def test_transformers_against_its_own_tensors():
    """SmolLM2 in float32 on a CPU: the parameters, and the keys and values of two prompts of 256 tokens."""
    torch, transformers = need("torch", "hf"), need("transformers", "hf")
    folder = WEIGHTS / "smollm2"
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    kept = network(torch.ones((2, 256), dtype=torch.long), use_cache=True).past_key_values
    cache = sum(layer.keys.nbytes + layer.values.nbytes for layer in kept.layers)
    told = hf.account(
        models.load(folder), parse("CPU-64GB"), asked("hf", dtype="float32", context=256, concurrency=2)
    )
    assert told.weights == sum(each.nbytes for each in network.parameters())
    assert told.kv_cache == cache
