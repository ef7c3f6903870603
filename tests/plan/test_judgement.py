"""What somebody who runs these engines would say of a plan: odd cards, odd formats, telling refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import memserve
from memserve.errors import DoesNotFit, UnknownName
from memserve.hardware import parse


def missed(model: str, gpus: str, **wishes: object) -> memserve.plan.Plan:
    with pytest.raises(DoesNotFit) as caught:
        memserve.plan.best(model, gpus, **wishes)  # type: ignore[arg-type]
    assert isinstance(caught.value.closest, memserve.plan.Plan)
    return caught.value.closest


@pytest.mark.parametrize(
    ("model", "gpus", "wishes"),
    [("llama-8b", "2xA100", {"tensor_parallel": 3}), ("llama-8b", "1xK80", {"backend": "vllm"}),
     ("llama-8b", "1xTPU-v5e", {}), ("BAAI/bge-m3", "1xK80", {"backend": "vllm"})],
)  # fmt: skip
def test_a_miss_tells_its_memory_where_a_rule_spoke_first(
    model: str, gpus: str, wishes: dict[str, object]
) -> None:
    closest = missed(model, gpus, **wishes)
    assert closest.outcome == "refused"
    assert closest.memory_gib_per_card is not None and closest.memory_gib_per_card["weights"] > 0.5


def test_gguf_repositories_are_for_llama_cpp() -> None:
    plan = memserve.plan.best("deepseek-v3", "8xH200", quantization="gguf-q4_k_m")
    assert plan.backend == "llamacpp"
    closest = missed("llama-8b", "1xL4", quantization="gguf-q4_k_m", backend="vllm")
    assert closest.verdict.rule == "gguf-file"


def test_a_stored_format_gives_way_only_to_what_the_engine_offers() -> None:
    found = memserve.plan.candidates("deepseek-v3", "8xH200", backend="vllm")
    assert {"fp8", "awq"} <= {one.quantization for one in found}
    assert not any(one.quantization.startswith("gguf") for one in found)


@pytest.mark.parametrize("gpus", ["1xRTX4060", "1xT4", "1xV100-16GB", "1x910B4", "1xRTX2080Ti"])
@pytest.mark.parametrize("model", ["llama-8b", "google/gemma-3-4b-it", "Qwen/Qwen2.5-7B-Instruct"])
def test_what_fits_leaves_room_for_its_graphs(model: str, gpus: str) -> None:
    fitting = [one for one in memserve.plan.candidates(model, gpus) if one.fits]
    assert fitting and all(one.footprint is not None and one.footprint.free >= 0 for one in fitting)


@pytest.mark.parametrize("gpus", ["1xT4", "1xV100", "1xP100", "2x310P"])
@pytest.mark.parametrize("model", ["google/gemma-2-9b-it", "google/gemma-3-4b-it"])
def test_gemma_is_not_computed_in_float16(model: str, gpus: str) -> None:
    plan = memserve.plan.best(model, gpus)
    assert plan.dtype != "float16" or plan.quantization.startswith("gguf")
    assert plan.dtype != "float32" or plan.quantization in ("none", "nf4")


def test_vllm_refuses_float32_beside_16_bit_kernels() -> None:
    closest = missed("google/gemma-2-9b-it", "1xT4", backend="vllm", quantization="gptq")
    assert closest.verdict.rule == "float32-quantized"


def test_ascend_knows_the_architectures_of_the_vllm_below() -> None:
    closest = missed("openai/whisper-large-v3", "1x910B2", backend="ascend")
    assert closest.verdict.rule == "encoder-decoder"
    closest = missed("facebook/contriever", "1x910B2", backend="ascend", quantization="none")
    assert closest.verdict.rule == "architecture-missing"


def test_what_computes_in_float16_only_gets_nothing_else() -> None:
    assert memserve.plan.best("facebook/contriever", "1x310P").dtype == "float16"


def test_deepseek_v4_holds_its_experts_in_4_bit() -> None:
    plan = memserve.plan.best("deepseek-ai/DeepSeek-V4-Pro", "8xH200")
    assert plan.quantization == "fp8" and plan.memory_gib_per_card is not None
    assert 100 < plan.memory_gib_per_card["weights"] < 130  # 125.65 GiB in sglang-hopper's log


@pytest.mark.parametrize("quantization", ["mxfp4", "w4a8", "w8a16"])
def test_what_nobody_can_make_misses_closest_on_an_engine_of_the_card(quantization: str) -> None:
    assert missed("llama-8b", "1xH100", quantization=quantization).backend in ("vllm", "sglang")


@pytest.mark.parametrize(
    ("command", "gpus"),
    [("vllm serve qwen3-0.6b --decode-context-parallel-size None --cpu-offload-gb null", "1xL4"),
     ("python -m sglang.launch_server --model-path qwen3-0.6b --swa-full-tokens-ratio None", "1xL4")],
)  # fmt: skip
def test_a_number_that_is_none_is_not_given(command: str, gpus: str) -> None:
    bare = command[: command.index("qwen3-0.6b") + len("qwen3-0.6b")]
    assert (
        memserve.plan.check(command, gpus).kv_cache_tokens == memserve.plan.check(bare, gpus).kv_cache_tokens
    )


@pytest.mark.parametrize("model", ["BAAI/bge-m3", "facebook/contriever"])
@pytest.mark.parametrize("gpus", ["1xL4", "1x910B2"])
def test_sglang_holds_encoders_without_a_cache(model: str, gpus: str) -> None:
    plan = memserve.plan.best(model, gpus, backend="sglang", concurrency=64)
    assert "--is-embedding" in plan.command and plan.max_concurrency == 64
    assert plan.largest_context == plan.model.max_context


def test_images_on_a_v100_take_torchs_attention() -> None:
    plan = memserve.plan.best("Qwen/Qwen2.5-VL-7B-Instruct", "2xV100", backend="vllm")
    assert plan.command[plan.command.index("--mm-encoder-attn-backend") + 1] == "TORCH_SDPA"
    assert "--mm-encoder-attn-backend" not in memserve.plan.best("llama-8b", "2xV100").command
    assert memserve.plan.check(plan.command, "2xV100", engine_version=plan.engine_version).fits


MODELS = ["THUDM/glm-4-9b-chat", "moonshotai/Kimi-K2-Thinking", "MiniMaxAI/MiniMax-M2"]


@pytest.mark.parametrize("model", MODELS)
def test_code_of_a_repository_is_never_run_unasked(model: str) -> None:
    """With consent for a tokenizer alone, where the engine has the model's class itself."""
    for consent in (None, True):
        plan = memserve.plan.best(model, "8xB200", trust_remote_code=consent)
        needed = plan.model.tokenizer_code
        assert ("--trust-remote-code" in plan.command) == (needed and consent is True)
        assert any("code from the model's repository" in said for said in plan.reasons) == needed


@pytest.mark.parametrize("backend", ["vllm", "sglang", "hf"])
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "NobodysForCausalLM"])
def test_a_plan_that_needs_a_repositorys_code_says_so(tmp_path: Path, backend: str, name: str) -> None:
    config = {
        "architectures": [name], "auto_map": {"AutoModelForCausalLM": "own.Model"}, "model_type": "llama",
        "hidden_size": 1024, "vocab_size": 32000, "intermediate_size": 4096, "num_hidden_layers": 16,
        "num_attention_heads": 16, "num_key_value_heads": 4,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    for consent in (None, True):
        plan = memserve.plan.best(tmp_path, "1xL4", backend=backend, trust_remote_code=consent)
        needed = name.startswith("Nobody")
        assert ("--trust-remote-code" in plan.command) == (needed and consent is True)
        assert any("code from the model's repository" in said for said in plan.reasons) == needed


@pytest.mark.parametrize(
    "mapped", [{"AutoTokenizer": ["own.Slow", "own.Fast"]}, ["own.Slow", None], {}, None]
)
def test_a_folder_says_whether_its_tokenizer_is_code(tmp_path: Path, mapped: object) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1024,
        "vocab_size": 32000, "intermediate_size": 4096, "num_hidden_layers": 16, "num_attention_heads": 16,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": mapped}))
    assert memserve.plan.best(tmp_path, "1xL4").model.tokenizer_code == bool(mapped)


@pytest.mark.parametrize("model", ["gte-qwen2-7b", "internlm2-chat-7b"])
def test_a_tokenizer_of_a_repository_is_told_but_not_for_a_gguf_file(model: str) -> None:
    told = "the right tokenizer needs code from the model's repository"
    assert told in " ".join(memserve.plan.best(model, "16xB200", backend="vllm").reasons)
    level = {"backend": "llamacpp", "quantization": "gguf-q8_0", "trust_remote_code": True}
    plan = memserve.plan.best(model, "16xB200", **level)
    assert told not in " ".join(plan.reasons)
    assert "--trust-remote-code" not in plan.command


@pytest.mark.parametrize(("gpus", "release"), [("cpu", "7.6.0"), ("1xMI300X", "7.6.0"), ("1xT4", "7.7.0")])
def test_gptqmodel_is_the_release_that_takes_the_pinned_torch(gpus: str, release: str) -> None:
    found = memserve.plan.best("qwen3-0.6b", gpus, backend="hf", quantization="gptq")
    assert f"gptqmodel=={release}" in found.install  # 7.7.0 wants torch 2.14.1 or newer


def test_the_official_72b_checkpoints_are_padded_for_tensor_parallelism() -> None:
    plan = memserve.plan.best("Qwen/Qwen2.5-72B-Instruct", "4xV100")
    assert (plan.backend, plan.quantization, plan.tensor_parallel) == ("vllm", "gptq", 4)
    assert "Qwen/Qwen2.5-72B-Instruct-GPTQ-Int4" in plan.command
    own = memserve.plan.candidates(
        "Qwen/Qwen2.5-VL-72B-Instruct", "2xA6000", backend="vllm", quantization="gptq"
    )
    assert {one.rule for one in own if one.tensor_parallel == 2} == {"quantization-groups"}


@pytest.mark.parametrize("gpus", ["8xL40S", "8xA100-40GB"])
def test_experts_stay_whole_where_slices_break_blocks_or_groups(gpus: str) -> None:
    plan = memserve.plan.best("Qwen/Qwen3-235B-A22B", gpus, backend="vllm")
    assert plan.tensor_parallel == 8 and plan.quantization in ("fp8", "gptq")
    assert "--enable-expert-parallel" in plan.command  # 1536 / 8 is no multiple of 128: vllm#17569


def test_a_block_that_tensor_parallelism_breaks_is_refused() -> None:
    command = "vllm serve Qwen/Qwen3-30B-A3B-FP8 --tensor-parallel-size 4"  # vllm#25292
    assert memserve.plan.check(command, "4xH100").verdict.rule == "quantization-blocks"
    assert memserve.plan.check(f"{command} --enable-expert-parallel", "4xH100").fits


@pytest.mark.parametrize("word", ["half", "float16"])
def test_a_dtype_has_two_names(word: str) -> None:
    command = f"vllm serve google/gemma-2-9b-it --dtype {word}"
    assert memserve.plan.check(command, "1xL4", engine_version="0.10.0").verdict.rule == "fp16-unstable"


@pytest.mark.parametrize("quantization", ["nvfp4", "gptq", "fp8", "awq"])
def test_a_plans_own_command_is_judged_alike(quantization: str) -> None:
    plan = memserve.plan.best("Qwen/Qwen3-32B", "2xRTX4090", backend="vllm", quantization=quantization)
    judged = memserve.plan.check(plan.command, "2xRTX4090", engine_version=plan.engine_version)
    assert judged.fits and judged.memory_gib_per_card is not None and plan.memory_gib_per_card is not None
    assert judged.memory_gib_per_card["weights"] == pytest.approx(
        plan.memory_gib_per_card["weights"], rel=0.01
    )
    assert judged.kv_cache_tokens == pytest.approx(plan.kv_cache_tokens, rel=0.02)


def test_several_nodes_are_used_before_one_is_squeezed() -> None:
    plan = memserve.plan.best("moonshotai/Kimi-K2-Thinking", "2x8xH100")
    assert (plan.tensor_parallel, plan.pipeline_parallel) == (8, 2)
    assert "--max-num-seqs" not in plan.command
    assert memserve.plan.best("Qwen/Qwen3-235B-A22B", "2x8xH100").pipeline_parallel == 1
    small = memserve.plan.best("llama-70b", "4x4xL4", quantization="none")
    assert (small.tensor_parallel, small.pipeline_parallel) == (4, 4)


@pytest.mark.parametrize(("word", "near"), [
    ("q4", "gguf-q4_k_m"), ("4bit", "awq"), ("4-bit", "awq"), ("int4", "gptq"), ("w4", "awq"),
    ("exl2", "nf4"), ("q8", "gguf-q8_0"), ("8bit", "fp8"), ("iq4_xs", "gguf-q4_k_m"), ("q3", "gguf-q3_k_m"),
])  # fmt: skip
def test_a_number_of_bits_is_answered_with_formats_of_so_many(word: str, near: str) -> None:
    with pytest.raises(UnknownName, match="did you mean") as caught:
        memserve.plan.best("llama-8b", "1xL4", quantization=word)
    assert near in caught.value.suggestions
    assert all(
        memserve.plan.best("llama-8b", "1xL4", quantization=one).fits for one in caught.value.suggestions
    )


def test_of_as_many_bits_the_last_resort_that_is_twice_as_fast_goes_first() -> None:
    plan = memserve.plan.best("Qwen/Qwen3.5-35B-A3B", "CPU-24GB")
    assert (plan.backend, plan.quantization) == ("llamacpp", "gguf-q4_k_m") and not plan.checkpoint.make
    assert memserve.plan.best("Qwen/Qwen3.5-35B-A3B", "CPU-24GB", backend="hf").quantization == "gptq"


@pytest.mark.parametrize("gpus", ["CPU-64GB", "1xM2-Max"])
def test_an_embedder_is_not_left_to_a_server_without_vectors(gpus: str) -> None:
    plan = memserve.plan.best("google/embeddinggemma-300m", gpus, backend="hf")
    assert plan.command[:6] == [*["memserve", "serve", "--backend", "hf", "--model"], plan.checkpoint.id]
    assert plan.command[6:8] == ["--task", "embed"] and not any("no route" in why for why in plan.reasons)


@pytest.mark.parametrize(
    ("gpus", "first"), [("1xP40", "llamacpp"), ("1xM2-Max", "llamacpp"), ("8x910A", "hf")]
)
def test_of_last_resorts_eight_bits_twice_as_fast_go_before_sixteen(gpus: str, first: str) -> None:
    plan = memserve.plan.best("llama-8b", gpus)
    whole = memserve.plan.best("llama-8b", gpus, backend="hf", quantization="none")
    assert plan.backend == first
    assert (plan.speed["output_tokens_per_s"]["likely"]  # type: ignore[index]
            >= whole.speed["output_tokens_per_s"]["likely"])  # type: ignore[index]  # fmt: skip


@pytest.mark.parametrize(
    "gpus", ["1xMI50-32GB", "1xMI60", "2xRX6800", "1xRX7900XT", "2xRX7800XT", "1xRX6700XT"]
)
@pytest.mark.parametrize("backend", ["vllm", "hf", "llamacpp"])
def test_amds_home_cards_compute_in_what_they_have(gpus: str, backend: str) -> None:
    found = memserve.plan.candidates("llama-3.2-3b", gpus, backend=backend)
    card = parse(gpus).card
    assert all(one.dtype in card.flops for one in found if one.fits)
    left_out = {"gfx906": ("vllm",), "gfx1030": ("vllm",), "gfx1031": ("vllm", "hf")}.get(str(card.soc), ())
    assert any(one.fits for one in found) == (backend not in left_out)
