"""Cards that few have timed: predictions follow from their bandwidth and from the published rows."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from memserve.hardware import GIB, Machine, card, cards
from memserve.hardware.catalogue import processor
from memserve.speed import predict
from memserve.speed.roofline.step import rate

LLAMA = "meta-llama/Llama-2-7b-chat-hf"
# llama.cpp on a P40, tokens a second written and read: ggml-org/llama.cpp pull 4766.
# Q4_0 set the two factors of its class; the others were left out.
P40 = (("q4_0", 56.8, 912), ("q4_1", 55.5, 909), ("q4_k_s", 54.2, 851), ("q5_0", 48.3, 859))


@pytest.mark.parametrize(("weights", "written", "read"), P40)
def test_llama_cpp_on_pascal(weights, written, read):
    options = {"backend": "llamacpp", "quantization": f"gguf-{weights}", "concurrency": 1}
    answer = predict(LLAMA, "1xP40", input_tokens=1, output_tokens=128, **options)
    prompt = predict(LLAMA, "1xP40", input_tokens=512, output_tokens=1, **options)
    assert 1000 / answer.tpot_ms.likely == pytest.approx(written, rel=0.25)
    assert 512 / prompt.ttft_ms.likely * 1000 == pytest.approx(read, rel=0.25)


def test_sixteen_bits_are_never_slower_than_thirty_two():
    for one in cards():
        for dtype in ("float16", "bfloat16"):
            assert rate(one, dtype) >= one.flops.get("float32", 0.0), one.name


DENSE = ("qwen3-8b", "qwen3-32b", "llama-8b", "llama-70b", "mistralai/Mistral-7B-Instruct-v0.3")


@pytest.mark.parametrize("seed", range(30))
def test_ascend_decodes_ten_to_twenty_per_cent_below_a_gpu_of_its_bandwidth(seed):
    draw = random.Random(seed)
    npu, count = card(draw.choice(["910B2", "910B3", "910B4"])), draw.choice([1, 2, 4, 8])
    gpu = replace(card("A100-80GB"), bandwidth=npu.bandwidth)
    load = {"tensor_parallel": count, "input_tokens": draw.randint(100, 2000), "output_tokens": 256}
    model = draw.choice(DENSE)
    for backend in ("ascend", "mindie"):
        here = predict(model, Machine(npu, count), backend=backend, concurrency=1, **load)
        there = predict(model, Machine(gpu, count), backend="vllm", concurrency=1, **load)
        assert 0.8 <= there.tpot_ms.likely / here.tpot_ms.likely <= 0.93


def test_a_small_model_on_two_cores():
    """27 to 79 tokens a second were measured."""
    machine = Machine(processor(2, 16 * GIB))
    found = predict("HuggingFaceTB/SmolLM2-135M", machine, backend="hf", input_tokens=100, output_tokens=100,
                    concurrency=1)  # fmt: skip
    assert 27 <= 1000 / found.tpot_ms.likely <= 79
