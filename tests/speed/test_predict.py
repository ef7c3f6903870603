"""The contract of `predict`: three positive ranges each time, each term with its effect, and quickly."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from counting import calls

from memserve.errors import InvalidInput, UnknownName
from memserve.hardware import Link, parse
from memserve.model import load
from memserve.speed import predict
from memserve.speed.roofline import layout

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
LARGE = "meta-llama/Llama-3.1-70B"
SPARSE = "deepseek-ai/DeepSeek-R1"
MOST_CALLS = 5000


def speed(model=LLAMA, gpus="1xH100", backend="vllm", input_tokens=1000, output_tokens=200, **words):
    return predict(
        model, gpus, backend=backend, input_tokens=input_tokens, output_tokens=output_tokens, **words
    )


def tpot(**words):
    return speed(**words).tpot_ms.likely


def flow(**words):
    return speed(**words).output_tokens_per_s.likely


@pytest.mark.parametrize(
    "gpus", ["1xH100", "4xV100", "1xL4", "8x910B4", "1xRTX4090", "cpu", "2x8xH100", "1xMI300X", "64xH200"]
)
@pytest.mark.parametrize(
    "backend", ["vllm", "sglang", "trtllm", "hf", "lmdeploy", "llamacpp", "ascend", "mindie", "mlc", "new"]
)
def test_three_ordered_positive_ranges_whatever_is_asked(gpus, backend):
    for model, tensor in ((LLAMA, None), (SPARSE, 1), (LARGE, 8)):
        found = speed(model, gpus, backend, tensor_parallel=tensor, concurrency=16)
        for figure in (found.ttft_ms, found.tpot_ms, found.output_tokens_per_s):
            assert 0 < figure.low <= figure.likely <= figure.high


@pytest.mark.parametrize(
    "name",
    ["none", "gptq", "awq", "nf4", "int8", "fp8", "w8a8", "w4a16", "nvfp4", "mxfp4", "gguf-q4_k_m", "Q4_K_M",
     "F16", "bf16?", "fp4", "int4(QAT weights)", "awq GEMM", "GPTQ 4bit", "EXL2 3.0 bpw", "UINT4",
     "gptq-int8"],
)  # fmt: skip
def test_quantizations_by_every_name_in_use(name):
    assert tpot(quantization=name, concurrency=1) > 0


def test_unknown_words_and_impossible_counts_are_refused():
    with pytest.raises(UnknownName):
        speed(quantization="magic")
    for words in (
        {"input_tokens": -1},
        {"output_tokens": 0},
        {"concurrency": 0},
        {"concurrency": float("nan")},
    ):
        with pytest.raises(InvalidInput):
            speed(**words)


def test_objects_serve_as_well_as_names():
    assert speed(load(LLAMA), parse("1xH100"), concurrency=4) == speed(concurrency=4)


def test_old_and_strange_versions():
    for version in ("0.2", "0.6.4.post1", "nightly-dev", "", "1.2.0rc6.post3", "v5.1"):
        assert tpot(engine_version=version, concurrency=8) > 0


def test_more_bandwidth_and_fewer_bytes_are_faster():
    assert (
        tpot(gpus="1xH200", concurrency=1)
        < tpot(gpus="1xA100", concurrency=1)
        < tpot(gpus="1xL4", concurrency=1)
    )
    assert (
        tpot(quantization="awq", concurrency=1)
        < tpot(quantization="fp8", concurrency=1)
        < tpot(concurrency=1)
    )


def test_four_bits_do_not_speed_up_a_large_batch():
    small = tpot(gpus="1xA100", quantization="awq", concurrency=1) / tpot(gpus="1xA100", concurrency=1)
    large = tpot(gpus="1xA100", quantization="awq", concurrency=256) / tpot(gpus="1xA100", concurrency=256)
    assert small < 0.6
    assert large > 0.9


def test_a_batch_touches_more_experts():
    def growth(model):
        words = {"model": model, "gpus": "8xH200", "input_tokens": 100, "output_tokens": 1000}
        return tpot(concurrency=64, **words) / tpot(concurrency=1, **words)

    assert growth(SPARSE) > 1.5 * growth(LARGE)


def test_tensor_parallel_over_a_slow_link_gains_less():
    fast = parse("8xH100")
    slow = replace(fast, card=replace(fast.card, link=Link("PCIe4", 16e9)))
    words = {"model": LARGE, "tensor_parallel": 8, "concurrency": 64}
    assert tpot(gpus=slow, **words) > 1.3 * tpot(gpus=fast, **words)


def test_a_long_context_is_slower_and_a_cached_prefix_is_faster_to_begin():
    assert tpot(input_tokens=30000, concurrency=8) > tpot(input_tokens=300, concurrency=8)
    cold = speed(input_tokens=20000, concurrency=1)
    warm = speed(input_tokens=100, prefix_tokens=19900, concurrency=1)
    assert warm.ttft_ms.likely < cold.ttft_ms.likely / 3
    assert warm.tpot_ms.likely == pytest.approx(cold.tpot_ms.likely, rel=0.1)


def test_an_eight_bit_cache_helps_long_contexts():
    assert tpot(input_tokens=30000, concurrency=4, kv_dtype="fp8") < tpot(input_tokens=30000, concurrency=4)


def test_throughput_is_of_the_whole_machine():
    one, four = flow(concurrency=None), flow(gpus="4xH100", tensor_parallel=1, concurrency=None)
    assert four == pytest.approx(4 * one)
    assert flow(concurrency=4) < flow(concurrency=64) < one * 1.01


@pytest.mark.parametrize("backend", ["vllm", "sglang", "lmdeploy", "llamacpp", "ascend"])
@pytest.mark.parametrize("gpus", ["8xA100", "4xL4", "8x910B4", "2x8xH100"])
@pytest.mark.parametrize("asked", [1, 2, 3, 8, 20])
def test_no_more_is_written_than_those_in_flight_can_take(backend, gpus, asked):
    """A copy of the model without a request writes nothing (Little's law)."""
    for copies in (1, 2, 4, 8):
        found = speed(gpus=gpus, backend=backend, data_parallel=copies, concurrency=asked)
        rate = found.output_tokens_per_s.likely / 1000
        assert rate * found.tpot_ms.likely <= asked * 1.02, (copies, found)


def test_queueing_waits():
    found = speed(concurrency=5000, input_tokens=4000)
    assert found.bound != "asked"
    assert found.ttft_ms.likely > 10 * speed(concurrency=1, input_tokens=4000).ttft_ms.likely


def test_at_most_where_nobody_measured():
    assert speed(backend="an-engine-of-tomorrow", concurrency=1).at_most
    assert speed(gpus="1xGaudi3", concurrency=1).at_most
    assert not speed(concurrency=1).at_most
    assert speed(gpus="1xMI300X", concurrency=1).at_most


def test_layouts_are_read_and_the_reading_is_told():
    assert "expert" in speed(SPARSE, "64xH200", tensor_parallel=64, concurrency=8).notes[0]
    assert "do not fit" in speed(LARGE, "1xL4", tensor_parallel=1, concurrency=1).notes[0]
    assert speed(concurrency=1).notes == ()


def test_a_prediction_is_little_work():
    model, machine = load(SPARSE), parse("8xH200")
    speed(model, machine, concurrency=64)
    assert calls(lambda: speed(model, machine, concurrency=64)) < MOST_CALLS


def test_nothing_heavy_is_loaded():
    heavy = {"numpy", "scipy", "importlib.resources", "pydantic"}
    code = f"import sys, memserve.speed; print({heavy} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("TensorRT 10.11, CUDA 12.9", "trtllm"), ("vLLM 0.6.5.dev964+mlperf50, Pytorch 2.7.0a0", "vllm"),
        ("vllm-ascend", "ascend"), ("AutoAWQ(transformers)", "fused"), ("llama.cpp", "llamacpp"),
        ("openai", None),
    ],
)  # fmt: skip
def test_engines_by_the_names_of_published_tables(name, kind):
    assert layout.kind(name) == kind


@pytest.mark.parametrize(
    "words",
    [{"input_tokens": "10"}, {"input_tokens": None}, {"input_tokens": 1e300}, {"output_tokens": 1e300},
     {"concurrency": "8"}, {"tensor_parallel": "2"}, {"tensor_parallel": 0}, {"tensor_parallel": 1.5},
     {"engine_version": 0.9}, {"quantization": 4}, {"backend": None}, {"gpus": None}, {"gpus": 5},
     {"prefix_tokens": "a"}, {"pipeline_parallel": -1}, {"data_parallel": "a"}, {"max_sequences": 0},
     {"kv_dtype": 8}, {"model": None}],
    ids=str,
)  # fmt: skip
def test_what_is_no_number_or_word_is_refused_in_one_line(words):
    with pytest.raises(InvalidInput, match=r"must be|a model is") as caught:
        speed(**words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["vllm", "sglang", "trtllm", "lmdeploy"])
@pytest.mark.parametrize("model", [LLAMA, LARGE, SPARSE])
@pytest.mark.parametrize("card", ["H100", "A100", "B200"])
def test_what_cannot_be_faster_is_not(backend, model, card):
    """More copies, a longer prompt, a longer answer, a fuller server: each has one direction."""
    words = {"model": model, "backend": backend, "quantization": "fp8", "tensor_parallel": 8}
    one, two = f"8x{card}", f"2x8x{card}"
    assert flow(gpus=two, **words) >= flow(gpus=one, **words) * 0.999
    steps = [tpot(gpus=one, concurrency=c, **words) for c in (1, 2, 8, 32, 64, 128, 256)]
    assert steps == sorted(steps)
    contexts = [tpot(gpus=one, concurrency=8, input_tokens=n, **words) for n in (100, 1000, 10_000, 100_000)]
    assert contexts == sorted(contexts)
    firsts = [
        speed(gpus=one, concurrency=8, input_tokens=n, **words).ttft_ms.likely for n in (100, 1000, 10_000)
    ]
    assert firsts == sorted(firsts)


@pytest.mark.parametrize("backend", ["vllm", "sglang", "trtllm", "hf", "llamacpp", "ascend", "new"])
def test_a_larger_model_of_one_kind_is_slower(backend):
    for concurrency in (1, 16, 64):
        words = {"backend": backend, "gpus": "8xA100", "tensor_parallel": 8, "concurrency": concurrency}
        assert tpot(model=LLAMA, **words) < tpot(model=LARGE, **words)
        assert flow(model=LLAMA, **words) > flow(model=LARGE, **words)


@pytest.mark.parametrize("backend", ["vllm", "sglang", "trtllm", "ascend"])
@pytest.mark.parametrize(("prompt", "answer"), [(200, 200), (2000, 100), (1024, 1024)])
def test_what_is_sent_at_once_waits_longer_and_is_never_slower_than_less(backend, prompt, answer):
    """Beyond 256 requests tests send all at once: the last answers run alone, short ones wait for prompts."""
    words = {"gpus": "4xH100", "model": LARGE, "backend": backend, "quantization": "fp8"}
    found = [
        speed(input_tokens=prompt, output_tokens=answer, concurrency=count, **words)
        for count in (64, 256, 257, 300, 512, 1000, 4000, 10_000)
    ]
    steps = [one.tpot_ms.likely for one in found]
    assert steps == sorted(steps)
    for less, more in pairwise(found):
        assert more.output_tokens_per_s.likely > 0.95 * less.output_tokens_per_s.likely
        assert more.ttft_ms.likely > 0.99 * less.ttft_ms.likely


def test_the_most_requests_of_latent_experts_share_them():
    """Tensor ranks would each keep the whole latent, so an open layout holds most with attention per card."""
    open_, named = (
        speed(SPARSE, "8xH200", concurrency=None, tensor_parallel=tensor, output_tokens=1000)
        for tensor in (None, 8)
    )
    assert "share the experts" in open_.notes[0]
    assert open_.output_tokens_per_s.likely > 1.3 * named.output_tokens_per_s.likely
    assert speed(SPARSE, "8xH200", concurrency=8).notes == ()
    assert speed(LARGE, "8xH200", concurrency=None).notes == ()


def test_an_answer_is_let_in_before_there_is_room_for_all_of_it_except_where_engines_reserve():
    held = {
        backend: speed(LARGE, "4xA100", backend, output_tokens=8000, concurrency=None).batch
        for backend in ("vllm", "trtllm")
    }
    assert held["vllm"] > 1.3 * held["trtllm"]


@pytest.mark.parametrize("figure", ["tpot_ms", "ttft_ms"])
def test_ranges_are_wider_where_nobody_measured(figure):
    def width(**words):
        found = getattr(speed(concurrency=8, **words), figure)
        return found.high / found.low

    assert width(gpus="1xMI300X") > width(gpus="1xH100")
    assert width(backend="an-engine-of-tomorrow") > width(backend="vllm")
