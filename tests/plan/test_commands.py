"""Every option of an emitted command exists in the release that it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import memserve
from memserve.errors import DoesNotFit
from memserve.model import catalogue

if TYPE_CHECKING:
    from memserve.plan import Plan

OPTIONS = json.loads((Path(__file__).parents[1] / "data" / "plan" / "engine_options.json").read_text("utf-8"))
TWO_WORDS = {"vllm": 3, "ascend": 3, "sglang": 5, "lmdeploy": 4}
MODELS = (
    "llama-70b", "Qwen/Qwen3-30B-A3B-Instruct-2507", "BAAI/bge-large-en-v1.5", "Qwen/Qwen3-Embedding-0.6B",
    "THUDM/glm-4-9b-chat",
)  # fmt: skip
MACHINES = ("1xT4", "4xV100", "4xA100", "8x910B4", "2x8xH100")
WISHES = ({}, {"kv_dtype": "fp8"}, {"quantization": "w8a8"}, {"quantization": "nf4"})


def options_of(plan: Plan) -> list[str]:
    return [word for word in plan.command if word.startswith("--")]


def known(plan: Plan) -> set[str]:
    if plan.backend in ("vllm", "ascend"):
        version = "0.23.0" if plan.backend == "ascend" else plan.engine_version
        return {f"--{name.replace('_', '-')}" for name in OPTIONS["vllm"][version]}
    if plan.backend == "sglang":
        return {f"--{name.replace('_', '-')}" for name in OPTIONS["sglang"]["0.5.23"]}
    return {f"--{name}" for name in OPTIONS["lmdeploy"]["0.18.0"]} | {"--tp", "--session-len", "--backend"}


def planned(model: str, machine: str, backend: str, wishes: dict[str, str]) -> Plan | None:
    try:
        return memserve.plan.best(model, machine, backend=backend, **wishes)
    except DoesNotFit:
        return None


def plans() -> list[Plan]:
    found = [
        planned(model, machine, backend, wishes)
        for model in MODELS
        for machine in MACHINES
        for wishes in WISHES
        for backend in ("vllm", "ascend", "sglang", "lmdeploy")
    ]
    return [plan for plan in found if plan is not None]


@pytest.mark.slow
def test_every_option_exists_in_its_release() -> None:
    seen = set()
    for plan in plans():
        unknown = set(options_of(plan)) - known(plan)
        assert not unknown, (plan.command, plan.engine_version)
        seen.add((plan.backend, plan.engine_version))
        if plan.backend == "vllm" and "--quantization" in plan.command:
            word = plan.command[plan.command.index("--quantization") + 1]
            plugin = word == "bitsandbytes" and "vllm-bnb-plugin" in plan.install
            assert plugin or word in OPTIONS["vllm_quantizations"][plan.engine_version]
    assert {("vllm", "0.33.0"), ("vllm", "0.19.1"), ("ascend", "0.23.0.post1"), ("sglang", "0.5.23"),
            ("lmdeploy", "0.18.0")} <= seen  # fmt: skip


@pytest.mark.parametrize(
    ("backend", "gpus", "start"),
    [
        ("vllm", "1xL4", ["vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct"]),
        ("ascend", "1x910B2", ["vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct"]),
        ("sglang", "1xL4", ["python", "-m", "sglang.launch_server", "--model-path",
                            "meta-llama/Llama-3.1-8B-Instruct"]),
        ("lmdeploy", "1xL4", ["lmdeploy", "serve", "api_server", "meta-llama/Llama-3.1-8B-Instruct"]),
        ("hf", "1xL4", ["transformers", "serve", "meta-llama/Llama-3.1-8B-Instruct"]),
        ("llamacpp", "1xL4", ["python", "-m", "llama_cpp.server"]),
    ],
)  # fmt: skip
def test_commands_begin_as_promised(backend: str, gpus: str, start: list[str]) -> None:
    assert memserve.plan.best("llama-8b", gpus, backend=backend).command[: len(start)] == start


RERANKERS = [row.id for row in catalogue.rows() if row.scoring_tokens]


@pytest.mark.parametrize("model", RERANKERS)
@pytest.mark.parametrize("gpus", ["1xL4", "1xV100", "1x910B4", "cpu+64GB"])
def test_a_decoder_that_reranks_is_started_as_a_classifier_or_not_at_all(model: str, gpus: str) -> None:
    """Without the override vLLM serves its vectors; no other engine here makes scores of its answers."""
    for one in (found for found in memserve.plan.candidates(model, gpus) if found.fits):
        assert one.backend in ("vllm", "ascend"), (one.backend, gpus)
    backend = {"cpu+64GB": "vllm"}.get(gpus)
    if backend:
        with pytest.raises(DoesNotFit, match="--backend vllm: vllm"):
            memserve.plan.best(model, gpus)
    plan = memserve.plan.best(model, gpus, backend=backend)
    said = json.loads(plan.command[plan.command.index("--hf-overrides") + 1])
    assert said["architectures"] == [plan.model.architecture.replace("CausalLM", "SequenceClassification")]
    assert said["classifier_from_token"] in (["no", "yes"], ["0", "1"])
    judged = memserve.plan.check(plan.command, gpus, engine_version=plan.engine_version)
    assert judged.memory_gib_per_card == plan.memory_gib_per_card


def test_a_classifier_ranks_on_llama_cpp() -> None:
    plan = memserve.plan.best("BAAI/bge-reranker-v2-m3", "1xP40", backend="llamacpp")
    assert plan.command[0] == "llama-server" and "--reranking" in plan.command
    assert "--embeddings" not in plan.command


def test_our_own_commands_pass_our_own_check() -> None:
    for model, machine in (("llama-70b", "4xV100"), ("llama-8b", "1xL4"), ("llama-70b", "8x910B4")):
        plan = memserve.plan.best(model, machine)
        judged = memserve.plan.check(plan.command, machine, engine_version=plan.engine_version)
        assert judged.fits, judged.reasons
        assert judged.tensor_parallel == plan.tensor_parallel
        assert plan.kv_cache_tokens and judged.kv_cache_tokens == plan.kv_cache_tokens


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        ("1xP100", ["torch==2.7.1"]), ("1xV100", ["torch==2.10.0"]), ("1xL4", ["torch==2.14.1"]),
        ("cpu", ["torch==2.13.0", "whl/cpu"]),
    ],
)  # fmt: skip
def test_transformers_is_installed_with_the_torch_of_the_card(gpus: str, words: list[str]) -> None:
    install = memserve.plan.best("Qwen/Qwen2.5-0.5B-Instruct", gpus, backend="hf").install
    assert all(word in install for word in words)


def test_an_asked_for_release_is_installed_by_its_number() -> None:
    plan = memserve.plan.best("llama-8b", "1xL4", backend="vllm", engine_version="0.25.1")
    assert plan.install == "pip install vllm==0.25.1"
    assert not any("last release with kernels" in reason for reason in plan.reasons)


def test_fewer_cards_than_the_node_has_are_named() -> None:
    plan = memserve.plan.best("llama-8b", "4xL4", tensor_parallel=2, data_parallel=1)
    assert plan.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert memserve.plan.best("llama-70b", "8x910B4").env["HCCL_BUFFSIZE"] == "200"
