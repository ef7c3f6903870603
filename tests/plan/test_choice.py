"""What is chosen, over cards and models."""

from __future__ import annotations

from typing import Any

import pytest

import memserve
from memserve import registry
from memserve.engines.rules.judge import offered
from memserve.errors import DoesNotFit, InvalidInput
from memserve.plan.candidate import weight_loss

NEWEST = "newest"
"""The first release that the backend offers: which one that is changes with every release."""
CHOICES = [
    ("llama-70b", "4xV100", {}, ("vllm", "0.19.1", "gptq", "float16", 4)),
    ("llama-8b", "1xV100", {}, ("vllm", "0.19.1", "none", "float16", 1)),
    ("llama-8b", "1xL4", {}, ("vllm", NEWEST, "none", "bfloat16", 1)),
    ("llama-8b", "1xH100", {}, ("vllm", NEWEST, "none", "bfloat16", 1)),
    ("llama-8b", "1xB200", {}, ("vllm", NEWEST, "none", "bfloat16", 1)),
    ("llama-8b", "1xMI300X", {}, ("vllm", NEWEST, "none", "bfloat16", 1)),
    ("llama-70b", "8xA100-40GB", {}, ("vllm", NEWEST, "none", "bfloat16", 8)),
    ("llama-70b", "1xH100", {}, ("vllm", NEWEST, "fp8", "bfloat16", 1)),
    ("llama-70b", "2xA100", {"quantization": "gptq"}, ("vllm", NEWEST, "gptq", "bfloat16", 2)),
    ("llama-70b", "8x910B4", {}, ("ascend", NEWEST, "none", "bfloat16", 8)),
    ("Qwen/Qwen2.5-14B-Instruct", "1x910B4", {}, ("ascend", NEWEST, "w8a8", "bfloat16", 1)),
    ("Qwen/Qwen2.5-32B-Instruct", "4x910B2", {}, ("ascend", NEWEST, "none", "bfloat16", 4)),
    ("deepseek-ai/DeepSeek-V3", "8xH200", {}, ("vllm", NEWEST, "fp8", "bfloat16", 8)),
    ("openai/gpt-oss-120b", "1xH100", {}, ("vllm", NEWEST, "mxfp4", "bfloat16", 1)),
    ("llama-8b", "1xP100", {}, ("llamacpp", NEWEST, "gguf-q8_0", "float16", 1)),
    ("llama-8b", "cpu", {}, ("hf", NEWEST, "none", "bfloat16", 1)),
    ("facebook/contriever", "1xV100", {}, ("hf", NEWEST, "none", "float16", 1)),
    ("llama-8b", "1xT4", {"backend": "sglang"}, ("sglang", "0.5.1.post2", "gptq", "float16", 1)),
    ("llama-70b", "4xV100", {"backend": "lmdeploy"}, ("lmdeploy", NEWEST, "gptq", "float16", 4)),
    ("llama-70b", "4xV100", {"backend": "hf"}, ("hf", NEWEST, "nf4", "float16", 1)),
]


@pytest.mark.parametrize(("model", "gpus", "wishes", "expected"), CHOICES, ids=lambda value: str(value)[:40])
def test_choice(model: str, gpus: str, wishes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    plan = memserve.plan.best(model, gpus, **wishes)
    newest = offered(registry.find(plan.backend).rules)[0]["version"]
    version = NEWEST if plan.engine_version == newest else plan.engine_version
    chosen = (plan.backend, version, plan.quantization, plan.dtype, plan.tensor_parallel)
    assert chosen == expected
    assert plan.fits and plan.outcome == "runs" and plan.command


NO_SERVER_FITS = {("llama-70b", "1xL4"), ("llama-70b", "2xT4")}


@pytest.mark.parametrize("gpus", ["4xV100", "1xL4", "2xRTX4090", "8xH100", "4x910B4", "2xT4"])
@pytest.mark.parametrize("model", ["llama-8b", "llama-70b", "Qwen/Qwen3-30B-A3B-Instruct-2507"])
def test_quality_first_leaves_no_better_one_behind(model: str, gpus: str) -> None:
    served = [
        candidate
        for candidate in memserve.plan.candidates(model, gpus)
        if candidate.backend not in ("hf", "llamacpp") and candidate.quantization != "fp8"
    ]
    losses = [weight_loss(candidate.checkpoint) for candidate in served if candidate.fits]
    if (model, gpus) in NO_SERVER_FITS:
        assert losses == []
    else:
        assert weight_loss(memserve.plan.best(model, gpus).checkpoint) <= min(losses)


def test_candidates_say_why_not() -> None:
    found = memserve.plan.candidates("llama-70b", "4xV100")
    assert found[0].fits and found[0].quantization == "gptq" and not found[0].reason
    assert all(candidate.reason and candidate.source for candidate in found if not candidate.fits)
    assert [one.fits for one in found] == sorted((one.fits for one in found), reverse=True)


def test_concurrency_is_held() -> None:
    few = memserve.plan.best("llama-8b", "1xL4", context=8192, concurrency=2)
    many = memserve.plan.best("llama-8b", "1xL4", context=8192, concurrency=16)
    assert few.quantization == "none" and many.quantization != "none"
    assert many.max_concurrency is not None and many.max_concurrency * many.data_parallel >= 16


def test_context_is_held_or_refused() -> None:
    plan = memserve.plan.best("llama-8b", "1xL4", context=65536)
    assert plan.kv_cache_tokens is not None and plan.kv_cache_tokens >= 65536
    with pytest.raises(DoesNotFit) as missed:
        memserve.plan.best("llama-8b", "1xL4", context=500_000)
    assert missed.value.closest.rule == "context"  # type: ignore[attr-defined]


def test_the_largest_context_is_the_largest() -> None:
    plan = memserve.plan.best("llama-8b", "1xL4", quantization="none", backend="vllm")
    assert plan.largest_context is not None
    wider = memserve.plan.best("llama-8b", "1xL4", quantization="none", backend="vllm",
                               context=plan.largest_context)  # fmt: skip
    assert wider.context == plan.largest_context
    assert "0.95" not in " ".join(wider.command)


def test_copies_fill_a_node_unless_they_are_counted() -> None:
    assert memserve.plan.best("Qwen/Qwen2.5-0.5B-Instruct", "4xA100").data_parallel == 4
    assert memserve.plan.best("Qwen/Qwen2.5-0.5B-Instruct", "4xA100", tensor_parallel=1).data_parallel == 4
    assert memserve.plan.best("Qwen/Qwen2.5-0.5B-Instruct", "4xA100", tp=2).data_parallel == 2
    assert memserve.plan.best("Qwen/Qwen2.5-0.5B-Instruct", "4xA100", pipeline_parallel=1).data_parallel == 4
    assert memserve.plan.best("llama-8b", "4xA100", data_parallel=2).data_parallel == 2


def test_nodes_take_pipeline_stages() -> None:
    plan = memserve.plan.best("meta-llama/Llama-3.1-405B-Instruct", "2x8xH100", quantization="none")
    assert (plan.tensor_parallel, plan.pipeline_parallel) == (8, 2)
    assert "ray" in plan.command


def test_whole_experts_where_slices_break_the_blocks() -> None:
    plan = memserve.plan.best(
        "Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "8xL4", tensor_parallel=4, backend="vllm"
    )
    assert plan.deployment.layout.expert and "--enable-expert-parallel" in plan.command


@pytest.mark.parametrize("objective", ["throughput", "latency", "cost"])
def test_objectives_rank_by_prediction(objective: str) -> None:
    plan = memserve.plan.best("llama-8b", "4xA100", objective=objective)
    quality = memserve.plan.best("llama-8b", "4xA100")
    assert plan.fits and plan.speed is not None and quality.speed is not None
    if objective == "latency":
        assert plan.speed["tpot_ms"]["likely"] <= quality.speed["tpot_ms"]["likely"]


def test_the_plan_tells_itself() -> None:
    told = memserve.plan.best("llama-70b", "4xV100").to_dict()
    assert told["model"]["id"] == "meta-llama/Llama-3.3-70B-Instruct"
    assert told["machine"]["card"] == "V100-32GB" and told["quantization"] == "gptq"


def test_functions_stay_functions_after_their_modules_load() -> None:
    import memserve.plan.checking
    import memserve.plan.search.offers

    assert callable(memserve.plan.check) and callable(memserve.plan.candidates)


@pytest.mark.parametrize("wrong", [{"context": 0}, {"tensor_parallel": -1}, {"concurrency": "two"},
                                   {"objective": "x"}, {"quantization": "q"}, {"kv_dtype": "y"}])  # fmt: skip
def test_wrong_wishes_raise(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        memserve.plan.best("llama-8b", "1xL4", **wrong)


@pytest.mark.parametrize(("model", "gpus", "words"), [
    ("Alibaba-NLP/gte-Qwen2-7B-instruct", "1xL4", ["--runner", "pooling"]),
    ("Qwen/Qwen3-Embedding-8B", "1xV100", ["--runner", "pooling"]),
    ("e5-mistral", "1xL4", ["--runner", "pooling"]),
])  # fmt: skip
def test_embedders_whose_config_reads_like_a_generators(model: str, gpus: str, words: list[str]) -> None:
    plan = memserve.plan.best(model, gpus)
    assert " ".join(words) in " ".join(plan.command)
    assert all(one.backend != "lmdeploy" for one in plan.alternatives)
    sglang = memserve.plan.best(model, "1xL4", backend="sglang")
    assert "--is-embedding" in sglang.command


def test_what_is_written_for_ascend_stays_there() -> None:
    plan = memserve.plan.best("deepseek-v3", "16xA3")
    assert (plan.backend, plan.quantization) == ("ascend", "w8a8")
    assert plan.checkpoint.id == "vllm-ascend/DeepSeek-V3-W8A8" and plan.env["VLLM_USE_MODELSCOPE"] == "True"
    here = memserve.plan.candidates("qwen3-8b", "1xRTX3090", quantization="w8a8")
    assert here and all(not one.checkpoint.id.startswith("vllm-ascend/") for one in here)
    with pytest.raises(DoesNotFit, match="Ascend NPUs only"):
        memserve.plan.best("vllm-ascend/Qwen3-32B-W8A8", "1xH100")


@pytest.mark.parametrize(("gpus", "wishes", "install", "never"), [
    ("1xMI300X", {}, "wheels.vllm.ai/rocm", "CUDA 13"),
    ("1xMI300X", {"backend": "sglang"}, "all_hip", "CUDA 13"),
    ("2x910B2", {"backend": "sglang"}, "all_npu", "CUDA 13"),
    ("1xH100", {}, "pip install vllm==0.33.0", "ROCm"),
])  # fmt: skip
def test_installs_are_the_makers(gpus: str, wishes: dict[str, Any], install: str, never: str) -> None:
    plan = memserve.plan.best("llama-8b", gpus, **wishes)
    assert install in plan.install
    assert never not in " ".join((plan.install, *plan.reasons))


def test_the_closest_miss_is_what_the_wish_lacks_not_the_newest_release() -> None:
    with pytest.raises(DoesNotFit) as miss:
        memserve.plan.best("llama-70b", "4xV100", backend="vllm", quantization="awq")
    closest = miss.value.closest
    assert isinstance(closest, memserve.plan.Plan)
    assert (closest.engine_version, closest.rule) == ("0.19.1", "awq-sm75")


def test_a_checkpoint_that_the_card_cannot_read_leads_to_its_original() -> None:
    with pytest.raises(DoesNotFit, match="plan Qwen/Qwen3-30B-A3B-Instruct-2507 instead"):
        memserve.plan.best("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "1xV100")


def test_the_alternatives_never_repeat_the_plan() -> None:
    from memserve.plan.library import answered
    from memserve.plan.query import Query
    from memserve.plan.sections import of_answer

    found = answered("llama-70b", "4xV100", Query())
    assert found.plan is not None
    assert all(one.deployment != found.plan.deployment for one in found.alternatives)
    table = next(
        page for page in of_answer(found, why=False, everything=False) if page.title == "alternatives"
    )
    assert len(table.rows) == len(found.alternatives)


@pytest.mark.parametrize("wishes", [
    {"engine_version": 3}, {"quantization": 4}, {"backend": 5}, {"kv_dtype": 8}, {"objective": 1},
    {"context": [8]},
])  # fmt: skip
def test_wishes_of_another_type_are_refused(wishes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        memserve.plan.best("llama-8b", "1xL4", **wishes)


@pytest.mark.parametrize("model", [None, 3, b"llama-8b", []])
def test_models_of_another_type_are_refused(model: Any) -> None:
    with pytest.raises(InvalidInput):
        memserve.plan.best(model, "1xL4")


def test_backends_ignore_case() -> None:
    assert memserve.plan.best("llama-8b", "1xL4", backend=" VLLM ").backend == "vllm"


def test_a_bare_release_that_nobody_lists_is_the_most_trusted_engines() -> None:
    plan = memserve.plan.best("llama-8b", "1xL4", engine_version="0.25.1")
    assert (plan.backend, plan.engine_version) == ("vllm", "0.25.1")
