"""After an engine ran out of memory: what the planner would change, and that it would fit."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

import memserve
from memserve.serve.advice import changes, instead

if TYPE_CHECKING:
    from memserve.plan import Plan


def _answer(plan: Plan) -> dict[str, Any]:
    told = plan.to_dict()
    return {"plan": told, "model": told["model"], "machine": told["machine"]}


def _usable(plan: Plan) -> float:
    return float(plan.to_dict()["memory_gib_per_card"]["usable"])


CASES = [("llama-8b", "1xL4", "vllm"), ("llama-70b", "4xV100", "vllm"), ("llama-70b", "8x910B4", "ascend"),
         ("Qwen/Qwen3-8B", "1xL4", "sglang")]  # fmt: skip


@pytest.mark.parametrize(("model", "gpus", "backend"), CASES)
def test_an_engine_that_asked_for_too_much_is_told_to_claim_less(model: str, gpus: str, backend: str) -> None:
    plan = memserve.plan.best(model, gpus, backend=backend)
    said = instead(_answer(plan), "card")
    assert said is not None
    command = shlex.split(said.partition("so: ")[2])
    judged = memserve.plan.check(command, gpus, engine_version=plan.engine_version)
    assert judged.fits, judged.reasons
    assert _usable(judged) < _usable(plan) * 0.99
    assert said.startswith("the planner would change --")


@pytest.mark.parametrize(("model", "gpus", "backend"), CASES)
def test_a_pool_that_came_out_small_is_given_more_or_asked_for_less(
    model: str, gpus: str, backend: str
) -> None:
    plan = memserve.plan.best(model, gpus, backend=backend)
    said = instead(_answer(plan), "pool")
    assert said is not None
    command = shlex.split(said.partition("so: ")[2])
    judged = memserve.plan.check(command, gpus, engine_version=plan.engine_version)
    assert judged.fits, judged.reasons
    bigger = _usable(judged) > _usable(plan) or judged.kv_cache_tokens > plan.kv_cache_tokens
    assert bigger or judged.context < plan.context


@pytest.mark.parametrize("backend", ["llamacpp", "lmdeploy"])
def test_engines_without_a_share_get_another_plan(backend: str) -> None:
    plan = memserve.plan.best("Qwen/Qwen3-8B", "1xL4", backend=backend)
    said = instead(_answer(plan), "card")
    assert said is not None
    assert said.startswith("the planner would change")


def test_what_is_not_about_memory_or_not_a_plan_gets_no_advice() -> None:
    plan = _answer(memserve.plan.best("llama-8b", "1xL4"))
    assert instead(plan, "") is None
    assert (
        instead({"plan": {"command": ["vllm", "serve", "x"]}, "model": None, "machine": None}, "card") is None
    )


def test_changes_are_said_option_by_option() -> None:
    old = ["vllm", "serve", "a/b", "--dtype", "float16", "--max-model-len", "8192", "--eager"]
    new = ["vllm", "serve", "a/b-awq", "--dtype", "float16", "--max-model-len", "4096", "--seqs", "8"]
    assert changes(old, new) == [
        "the model from a/b to a/b-awq", "--max-model-len from 8192 to 4096", "--eager (left out)",
        "--seqs 8",
    ]  # fmt: skip
