import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memserve.errors import InvalidInput
from memserve.memory.calibration import parse_log, read_log

GIB = 1024**3
SHARED = Path(os.environ.get("MEMSERVE_SHARED", Path(__file__).parents[3] / "shared"))

LOADED = "Model loading took 3.1 GiB and 2 seconds"
LOGS = Path(__file__).parents[1] / "data" / "startup"


def log_of(name):
    return (LOGS / f"{name}.txt").read_text(encoding="utf-8")


def gib(size):
    return None if size is None else round(size / GIB, 2)


def test_vllm_up_to_0_6_counts_blocks():
    log = parse_log(log_of("vllm_0.6.3"))
    assert (log.backend, log.version, log.model) == ("vllm", "0.6.3.post1", "Qwen/Qwen2-7B")
    assert (log.tensor, log.pipeline, log.context) == (2, 1, 32768)
    assert (gib(log.weights), log.kv_tokens) == (15.39, 2987 * 16)


def test_vllm_0_6_4_is_told_as_sums():
    log = parse_log(log_of("vllm_0.6.4"))
    assert (gib(log.total), log.utilization, gib(log.kv_bytes)) == (23.58, 0.9, 3.81)
    assert (gib(log.weights), gib(log.activation), gib(log.non_torch)) == (14.99, 2.07, 0.35)
    assert log.kv_tokens == 1952 * 16


def test_vllm_0_7():
    log = parse_log(log_of("vllm_0.7"))
    assert (gib(log.total), log.utilization) == (39.38, 0.8)
    assert (gib(log.weights), gib(log.non_torch), gib(log.activation)) == (27.57, 0.11, 1.49)
    assert (gib(log.kv_bytes), log.kv_tokens) == (2.33, 796 * 16)


def test_vllm_0_10_in_colour():
    log = parse_log(log_of("vllm_0.10"))
    assert (gib(log.total), gib(log.free_at_start), gib(log.requested)) == (23.65, 23.21, 21.28)
    assert (gib(log.weights), gib(log.activation), gib(log.non_torch)) == (5.79, 0.17, 0.02)
    assert (gib(log.graphs), gib(log.kv_bytes), log.kv_tokens) == (0.14, 15.31, 445968)
    assert (log.max_concurrency, log.context, log.utilization) == (108.88, 4096, 0.9)


def test_vllm_0_26_sums_weights_and_non_torch():
    log = parse_log(log_of("vllm_0.26"))
    assert (gib(log.weights), gib(log.non_torch)) == (56.93, 0.33)
    assert (gib(log.activation), gib(log.graphs)) == (0.23, 0.11)


def test_vllm_ascend():
    log = parse_log(log_of("vllm_ascend_0.23"))
    assert log.backend == "ascend"
    assert (gib(log.total), log.utilization, gib(log.weights)) == (60.96, 0.73, 27.54)
    assert (gib(log.activation), gib(log.non_torch), gib(log.graphs)) == (0.26, 0.18, 0.73)


def test_sglang_adds_the_pools_of_a_rank():
    log = parse_log(log_of("sglang_0.5"))
    assert (log.backend, log.model, log.tensor, log.utilization) == ("sglang", "Qwen/Qwen2.5-3B", 2, 0.85)
    assert (gib(log.weights), gib(log.kv_bytes), gib(log.graphs)) == (5.88, 59.86, 0.56)
    assert (log.kv_tokens, log.context, log.max_sequences) == (1743556, 32768, 4096)


@pytest.mark.parametrize(
    ("text", "tensor"),
    [("[2026-01-04 07:46:35 TP7] Load weight end. mem usage=8.01 GB", 8), ("(Worker_TP1 pid=9) " + LOADED, 2),
     ("(Worker_TP3_EP3 pid=9) tensor_parallel_size=2 " + LOADED, 2), (LOADED, None), ("TP0 " + LOADED, None),
     ("TP99999999999999999999 " + LOADED, None)],
)  # fmt: skip
def test_the_ranks_of_an_excerpt_tell_how_many_there_were(text, tensor):
    assert parse_log(text).tensor == tensor


def test_several_ranks_the_fullest_decides():
    log = parse_log("Model loading took 3.1 GiB and 2 seconds\nModel loading took 3.4 GiB and 2 seconds\n"
                "Available KV cache memory: 9.00 GiB\nAvailable KV cache memory: 8.70 GiB")  # fmt: skip
    assert (gib(log.weights), gib(log.kv_bytes)) == (3.4, 8.7)


def test_a_refused_context_tells_its_tokens():
    log = parse_log(
        "ValueError: The model's max seq len (131072) is larger than the maximum number of tokens that "
        "can be stored in KV cache (79392). Try increasing `gpu_memory_utilization`"
    )
    assert log.kv_tokens == 79392


@pytest.mark.parametrize("text", ["", "hello", "Traceback (most recent call last):", "\x00" * 100, "5.2 GiB"])
def test_garbage_says_what_was_expected(text, tmp_path):
    with pytest.raises(InvalidInput, match="has no memory figures of vLLM, vLLM-Ascend") as caught:
        parse_log(text)
    assert "Available KV cache memory" in str(caught.value) and len(str(caught.value)) <= 300
    file = tmp_path / "start.log"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=r"start\.log has no memory figures"):
        read_log(file)


def test_a_missing_or_huge_file(tmp_path):
    with pytest.raises(InvalidInput, match="cannot read the log"):
        read_log(tmp_path / "none.log")
    with pytest.raises(InvalidInput, match="cannot read the log"):
        read_log(tmp_path)
    with (tmp_path / "big.log").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(InvalidInput, match="has no memory figures"):
        read_log(tmp_path / "big.log")


@given(st.text(max_size=200), st.sampled_from(sorted(LOGS.glob("*.txt"))), st.integers(0, 600))
def test_noise_never_breaks_it(noise, log, cut):
    try:
        parse_log(noise + log.read_text(encoding="utf-8")[cut:] + noise)
    except InvalidInput as error:
        assert "\n" not in str(error)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared truth is not beside this checkout")
def test_the_public_logs():
    """Every figure that stands in a quoted log is read as the person who collected it did."""
    fields = {
        "weights_gib_per_gpu": "weights",
        "activation_peak_gib": "activation",
        "non_torch_gib": "non_torch",
        "cuda_graph_gib": "graphs",
        "kv_cache_gib_per_gpu": "kv_bytes",
    }
    right = wrong = 0
    for line in (SHARED / "truth/memory_public_logs.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["engine"] not in ("vllm", "sglang", "ascend"):
            continue
        try:
            log = parse_log(row["quote"].replace(" | ", "\n"))
        except InvalidInput:
            continue
        for name, field in fields.items():
            seen, ours = row["observed"].get(name), gib(getattr(log, field))
            if seen is not None and ours is not None:
                right += abs(ours - seen) <= 0.011 + 0.01 * abs(seen)
                wrong += abs(ours - seen) > 0.011 + 0.01 * abs(seen)
    assert right > 250 and wrong == 0


@pytest.mark.slow
def test_only_the_beginning_of_an_endless_log_is_read(tmp_path):
    start = "Model loading took 14.9889 GiB and 3.2 seconds\nAvailable KV cache memory: 39.28 GiB\n"
    log = tmp_path / "serving.log"
    log.write_text(start + "Avg generation throughput: 123.4 tokens/s\n" * 200_000, encoding="utf-8")
    assert gib(read_log(log).weights) == 14.99


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom", "/"])
def test_what_is_no_file_is_refused_at_once(path):
    with pytest.raises(InvalidInput, match="cannot read the log"):
        read_log(path)


def test_a_count_below_zero_is_no_figure():
    log = parse_log(
        "Available KV cache memory: 4.5 GiB\nMaximum concurrency for -1 tokens per request: 3.1x\n"
    )
    assert log.context is None and gib(log.kv_bytes) == 4.5


def test_a_figure_of_hundreds_of_digits_is_none():
    for line in ("GPU KV cache size: {} tokens", "Model loading took {} GiB and 2 seconds"):
        log = parse_log(f"{log_of('vllm_0.6.4')}\n{line.format('9' * 400)}\n")
        assert log.weights and log.kv_tokens == 1952 * 16


def test_lmdeploy_counts_blocks():
    log = parse_log(
        "[TM][INFO] [BlockManager] block_size = 8 MB\n[TM][INFO] [BlockManager] max_block_count = 1274\n"
    )
    assert (log.backend, log.kv_tokens) == ("lmdeploy", 1274 * 64)
    paged = parse_log("lmdeploy - CacheConfig(max_batches=128, block_size=32, num_gpu_blocks=4000)\n")
    assert (paged.backend, paged.kv_tokens) == ("lmdeploy", 4000 * 32)


def test_llamacpp_tells_each_buffer():
    log = parse_log(
        "build: 6123 (9f1e2d3) with cc\n"
        "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA GeForce RTX 3090) - 23879 MiB free\n"
        "load_tensors:   CPU_Mapped model buffer size =   281.81 MiB\n"
        "load_tensors:        CUDA0 model buffer size =  4403.49 MiB\n"
        "llama_context: n_ctx         = 8192\n"
        "llama_kv_cache:      CUDA0 KV buffer size =  1024.00 MiB\n"
        "llama_context:      CUDA0 compute buffer size =   258.50 MiB\n"
        "llama_context:        CPU compute buffer size =    24.01 MiB\n"
    )
    assert (log.backend, log.version, log.device, log.context) == (
        "llamacpp",
        "6123",
        "GeForce RTX 3090",
        8192,
    )
    assert (gib(log.weights), gib(log.kv_bytes)) == (4.3, 1.0)
    assert log.activation == round(258.5 * 2**20)
