"""Over hundreds of generated questions no answer is worse than that to the same with one option fixed."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.questions import Question, questions

import memserve

if TYPE_CHECKING:
    from memserve.plan import Plan

FIXED: dict[str, tuple[Any, ...]] = {
    "kv_dtype": ("fp8", "int8", "auto"),
    "quantization": ("none", "fp8", "w8a8", "gptq", "awq", "w4a16", "nvfp4", "nf4", "int8",
                     "gguf-q8_0", "w4a8"),
    "backend": ("vllm", "sglang", "lmdeploy", "ascend", "mindie", "hf", "llamacpp"),
    "tp": (1, 2, 4, 8),
}  # fmt: skip
EIGHT_BIT = frozenset({"fp8", "w8a8", "w8a16", "int8", "mxfp8", "gguf-q8_0", "gguf-q6_k"})
SLOW = frozenset({"hf", "llamacpp"})
EACH = 50
"""Questions of one test, each with one option of every kind fixed."""


def order(plan: Plan) -> tuple[int, int]:
    """The documented order (docs/planner.md), from what the plan says of itself: smaller is better."""
    weights = 0 if plan.quantization == "none" else 3
    if plan.quantization in EIGHT_BIT or plan.checkpoint.bits == 8:
        weights = 1
    elif plan.quantization == "gguf-q5_k_m":
        weights = 2
    cache = 0 if plan.kv_dtype in ("auto", "float16", "bfloat16") else 1
    at_once = (plan.max_concurrency or 0) * plan.data_parallel
    staged = plan.pipeline_parallel > 1 and plan.backend not in SLOW
    few = weights == 0 and 0 < at_once < 2
    barely = "--enforce-eager" in plan.command or plan.dtype == "float32" or staged or few
    slow = plan.backend in SLOW
    last = 1 + (plan.concurrency > 1) if slow else int(plan.dtype == "float32")
    return last, weights + cache + barely


def fixings(question: Question, chance: random.Random) -> list[dict[str, Any]]:
    """One option of every kind."""
    return [{name: chance.choice(values)} for name, values in FIXED.items()]


@pytest.mark.parametrize("seed", range(4))
def test_no_answer_is_worse_than_with_one_option_fixed(seed: int) -> None:
    chance = random.Random(seed)
    for question in questions(EACH, seed):
        plain = question.best()
        for fixed in fixings(question, chance):
            other = question.best(**fixed)
            if other is not None:
                assert plain is not None, (question, fixed)
                assert order(plain) <= order(other), (question, fixed)


WORDS = re.compile(r"not (\S+|16 bit): (fits, but ranks below)?")


@pytest.mark.parametrize("seed", range(4))
def test_no_reason_is_false_when_its_subject_is_asked_for(seed: int) -> None:
    told = 0
    for question in questions(EACH, seed):
        plain = question.best() or question.closest()
        for said in filter(None, map(WORDS.match, plain.reasons)):
            quantization = "none" if said[1] == "16 bit" else said[1]
            asked = question.best(quantization=quantization)
            assert (asked is not None) == bool(said[2]), (question, said.string)
            told += 1
    assert told > EACH / 4


def test_what_is_rejected_says_what_it_speaks_of() -> None:
    rejected = memserve.plan.best("qwen3-32b", "1xA100-80GB", context=32768, concurrency=8).rejected
    rows = [one.to_dict() for one in rejected]
    assert {row["kv_dtype"] for row in rows} >= {"auto", "fp8"}
    assert all(row["checkpoint"] and row["tensor_parallel"] and row["pipeline_parallel"] for row in rows)


@pytest.mark.parametrize("seed", range(4))
def test_what_would_fit_fits_when_asked(seed: int) -> None:
    chance, tried = random.Random(seed), 0
    for question in questions(EACH, seed):
        fixed = chance.choice(({}, {}, *fixings(question, chance)))
        wanted = {**question.options, **fixed, "concurrency": question.options["concurrency"] * 8}
        tight = Question(question.model, question.gpus, wanted)
        for remedy in tight.remedies():
            option = re.match(r"--([a-z-]+) (\S+): ", remedy)
            if option and option[1] == "gpus":
                assert tight._replace(gpus=option[2]).best(), (tight, remedy)
            elif option:
                value = int(option[2]) if option[2].isdigit() else option[2]
                asked = {**wanted, option[1].replace("-", "_"): value}
                assert tight._replace(options=asked).best(), (tight, remedy)
            tried += bool(option)
    assert tried > EACH / 4


def test_training_that_does_not_fit_names_checkpointing() -> None:
    missed = memserve.plan.train("llama-8b", "1xRTX3090", method="qlora")
    assert not missed.fits and "checkpointing" in missed.need.notes[-1]
    assert memserve.plan.train("llama-8b", "1xRTX3090", method="qlora", checkpointing=True).fits


@pytest.mark.parametrize(("backend", "serves"), [
    ("pangu", False), ("anthropic", False), ("gemini", False), ("openai", True), ("bedrock", True),
])  # fmt: skip
def test_an_open_model_is_planned_where_it_can_be_served(backend: str, serves: bool) -> None:
    assert bool(Question("llama-70b", "1xL4", {}).best(backend=backend)) is serves


@pytest.mark.parametrize("quantization", ["fp8", "w8a8"])
def test_what_llm_compressor_wrote_runs_on_a_cpu(quantization: str) -> None:
    plan = Question("llama-8b", "cpu", {}).best(quantization=quantization, backend="hf")
    assert plan is not None and plan.quantization == quantization


def test_llama_cpp_serves_several_at_once_and_files_in_parts() -> None:
    several = Question("llama-8b", "1xRTX4090", {"context": 8192, "concurrency": 4}).best(backend="llamacpp")
    large = Question("llama-70b", "4xRTX4090", {}).best(backend="llamacpp", quantization="gguf-q8_0")
    assert several is not None and large is not None
    words = dict(zip(several.command[1::2], several.command[2::2], strict=False))
    assert several.command[0] == large.command[0] == "llama-server"
    assert (words["--parallel"], words["--ctx-size"]) == ("4", "32768")
    assert any(word.endswith(":Q8_0") for word in large.command)


def test_sixteen_cards_in_one_node_are_said_to_be_rare() -> None:
    plan = Question("kimi-k2", "16xH100", {}).best()
    assert plan is not None and any("2x8xH100-80GB" in reason for reason in plan.reasons)
