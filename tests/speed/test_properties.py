"""What must hold of `predict` whatever is asked: hundreds of questions, drawn at random."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from memserve.hardware import GIB, Machine, card, cards
from memserve.hardware.catalogue import processor
from memserve.model import load
from memserve.speed import Speed, predict
from memserve.speed.roofline import shape

DENSE = (
    "qwen3-8b",
    "llama-8b",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "qwen3-32b",
    "llama-70b",
    "gemma-3-27b",
)
SPARSE = ("Qwen/Qwen3-30B-A3B", "openai/gpt-oss-120b", "deepseek-ai/DeepSeek-R1")
LARGE = ("llama-70b", "qwen3-32b", "llama-405b")
BACKENDS = ("vllm", "sglang", "trtllm", "lmdeploy", "hf", "llamacpp", "ascend", "mindie", "new")
KERNELS = {"vllm": ("awq", "gptq", "fp8", "w8a8"), "sglang": ("awq", "fp8", "w8a8"), "trtllm": ("awq", "fp8"),
           "lmdeploy": ("awq",), "llamacpp": ("gguf-q4_k_m", "gguf-q8_0")}  # fmt: skip
ROUNDS = 60
SLACK = 1.0005


def ask(draw: random.Random, **fixed: Any) -> Speed:
    """A question whose open words are drawn."""
    words = question(draw) | fixed
    return predict(words.pop("model"), words.pop("machine"), **words)


def question(draw: random.Random) -> dict[str, Any]:
    one = draw.choice([found for found in cards() if found.bandwidth and found.memory > 8 * GIB])
    return {
        "model": draw.choice(DENSE + SPARSE), "machine": Machine(one, draw.choice([1, 2, 4, 8])),
        "backend": draw.choice(BACKENDS), "quantization": draw.choice([None, "fp8", "awq"]),
        "input_tokens": int(10 ** draw.uniform(1, 4.5)), "output_tokens": int(10 ** draw.uniform(0.5, 3.5)),
        "concurrency": draw.choice([None, 1, 2, 8, 32, 128, 500, 2000]),
        "engine_version": draw.choice([None, "0.6.0", "0.9.1", "0.11.0", "1.0.0", "1.2.0"]),
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_ranges_are_ordered_and_positive_and_agree(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(5):
        words = question(draw)
        found = predict(
            words["model"],
            words["machine"],
            **{k: v for k, v in words.items() if k not in {"model", "machine"}},
        )
        for figure in (found.ttft_ms, found.tpot_ms, found.output_tokens_per_s):
            assert 0 < figure.low <= figure.likely <= figure.high < float("inf"), words
        if words["concurrency"] and words["concurrency"] <= 128:
            circle = found.ttft_ms.likely + (words["output_tokens"] - 1) * found.tpot_ms.likely
            little = words["concurrency"] * words["output_tokens"] / circle * 1e3
            assert found.output_tokens_per_s.likely <= little * SLACK, words
            assert found.output_tokens_per_s.likely >= little / 2 or words["output_tokens"] < 64, words


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_more_requests_and_longer_contexts_are_never_faster(seed: int) -> None:
    draw = random.Random(seed)
    words = question(draw) | {"concurrency": None}
    model, machine = words.pop("model"), words.pop("machine")
    counts = [predict(model, machine, **words | {"concurrency": n}) for n in (1, 4, 16, 64, 256)]
    for less, more in pairwise(counts):
        assert less.tpot_ms.likely <= more.tpot_ms.likely * SLACK, words
        assert less.ttft_ms.likely <= more.ttft_ms.likely * SLACK, words
    lengths = [
        predict(model, machine, **words | {"concurrency": 8, "input_tokens": n}) for n in (50, 500, 5000)
    ]
    for short, long in pairwise(lengths):
        assert short.ttft_ms.likely <= long.ttft_ms.likely * SLACK, words


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_faster_card_is_not_slower(seed: int) -> None:
    draw = random.Random(seed)
    words = question(draw)
    model, machine = words.pop("model"), words.pop("machine")
    better = replace(machine.card, bandwidth=machine.card.bandwidth * 1.5,
                     flops={name: rate * 1.5 for name, rate in machine.card.flops.items()})  # fmt: skip
    slow, fast = (predict(model, Machine(one, machine.cards), **words) for one in (machine.card, better))
    assert fast.tpot_ms.likely <= slow.tpot_ms.likely * SLACK, words
    assert fast.ttft_ms.likely <= slow.ttft_ms.likely * SLACK, words
    assert fast.output_tokens_per_s.likely * SLACK >= slow.output_tokens_per_s.likely, words


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_tensor_ranks_over_nvlink_do_not_slow_a_large_model(seed: int) -> None:
    draw = random.Random(seed)
    one = draw.choice(("A100-80GB", "H100", "H200", "B200"))
    words = question(draw) | {"backend": draw.choice(("vllm", "sglang", "trtllm")), "quantization": "fp8",
                              "concurrency": draw.choice((1, 8, 64)),
                              "model": draw.choice(LARGE)}  # fmt: skip
    model = words.pop("model")
    del words["machine"]
    found = [predict(model, Machine(card(one), n), tensor_parallel=n, **words) for n in (1, 2, 4, 8)]
    for fewer, more in pairwise(found):
        if fewer.bound != "asked" or fewer.notes:
            continue  # it holds fewer requests at once, or not even the weights
        assert more.tpot_ms.likely <= fewer.tpot_ms.likely * SLACK, (one, model, words)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_quantized_weights_do_not_slow_decoding_where_the_engine_has_kernels(seed: int) -> None:
    draw = random.Random(seed)
    backend = draw.choice(sorted(KERNELS))
    words = question(draw) | {"backend": backend, "concurrency": draw.choice((1, 2, 4)),
                              "input_tokens": 100, "model": draw.choice(DENSE),
                              "machine": Machine(card(draw.choice(("A100-80GB", "H100", "L40S"))), 8),
                              "tensor_parallel": draw.choice((1, 2, 8))}  # fmt: skip
    model, machine = words.pop("model"), words.pop("machine")
    whole, small = (predict(model, machine, **words | {"quantization": name})
                    for name in ("none", draw.choice(KERNELS[backend])))  # fmt: skip
    assert whole.bound != "asked" or small.tpot_ms.likely <= whole.tpot_ms.likely * SLACK, (
        backend,
        model,
        machine.card.name,
        words,
    )


@pytest.mark.parametrize("gpus", ["1xM2-Ultra", "1xM3-Max", "1xP40", "1xGTX1080Ti", "1xV100", "1xT4"])
def test_old_and_home_cards_decode_between_half_of_their_bandwidth_and_all(gpus: str) -> None:
    from memserve.hardware import parse

    machine = parse(gpus)
    found = predict("llama-2-7b", machine, backend="llamacpp", quantization="gguf-q4_0", concurrency=1,
                    input_tokens=100, output_tokens=100)  # fmt: skip
    peak = machine.card.bandwidth / 3.8e9
    assert 0.4 * peak < 1000 / found.tpot_ms.likely < peak


@pytest.mark.parametrize("cores", [1, 2, 4, 8, 16, 64])
def test_a_small_model_on_more_cores_is_faster(cores: int) -> None:
    words = {"backend": "hf", "input_tokens": 100, "output_tokens": 100, "concurrency": 1}
    one, two = (
        predict("HuggingFaceTB/SmolLM2-135M", Machine(processor(n, 16 * GIB)), **words)
        for n in (cores, 2 * cores)
    )
    assert one.tpot_ms.likely >= two.tpot_ms.likely


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_drafts_help_a_batch_that_waits_for_memory_and_less_a_large_one(seed: int) -> None:
    draw = random.Random(seed)
    words = question(draw) | {"backend": draw.choice(("vllm", "sglang", "trtllm")), "input_tokens": 500,
                              "model": draw.choice(DENSE), "quantization": None}  # fmt: skip
    model, machine = words.pop("model"), words.pop("machine")
    gains = []
    for count in (1, 128):
        plain, drafted = (
            predict(model, machine, **words | {"concurrency": count, "draft_tokens": n}) for n in (0, 3)
        )
        figures = (drafted.ttft_ms, drafted.tpot_ms, drafted.output_tokens_per_s)
        assert all(0 < one.low <= one.likely <= one.high for one in figures), words
        assert drafted.ttft_ms == plain.ttft_ms
        gains.append(plain.tpot_ms.likely / drafted.tpot_ms.likely)
    assert 1 <= gains[0] <= 2.6
    assert gains[1] <= gains[0] * 1.05, (gains, words)


@pytest.mark.parametrize("model", SPARSE)
def test_more_tokens_call_for_more_experts_and_popular_ones_for_fewer(model: str) -> None:
    found = shape.of(load(model))
    for tokens in (1, 2, 7.5, 64, 1000):
        few, some, even = (found.touched(tokens, evenness) for evenness in (0.3, 1.0, 1e6))
        independent = found.experts * (1 - (1 - found.experts_per_token / found.experts) ** tokens)
        assert even == pytest.approx(independent, rel=1e-3)
        assert found.experts_per_token <= few * SLACK <= some * SLACK**2 <= even * SLACK**3
        assert some <= found.touched(tokens + 1, 1.0) <= found.experts
    assert found.touched(1, 1.0) == pytest.approx(found.experts_per_token)
