"""Questions for the planner, made by chance: a model, a machine, a context, requests at once."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import memserve
from memserve.errors import DoesNotFit
from memserve.plan.candidate import OVERFLOWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memserve.plan import Plan

MODELS = (
    "llama-8b", "llama-70b", "llama-2-7b", "qwen3-8b", "qwen3-32b", "qwen3-30b-a3b", "gemma-3-27b",
    "gemma-2-9b", "mixtral-8x7b", "phi-4", "gpt-oss-20b", "Qwen/Qwen2.5-VL-7B-Instruct",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen/Qwen2.5-14B-Instruct", "Qwen/Qwen3-235B-A22B", "deepseek-v3", "mistralai/Mistral-7B-Instruct-v0.3",
)  # fmt: skip
CARDS = ("T4", "V100", "V100-16GB", "L4", "A10", "A100-40GB", "A100-80GB", "RTX3090", "RTX4090", "L40S",
         "H100", "H200", "B200", "MI300X", "910B2", "910B4", "A6000", "P100")  # fmt: skip
CONTEXTS = (2048, 4096, 8192, 16384, 32768)
AT_ONCE = (1, 1, 2, 4, 8, 16, 32)


class Question(NamedTuple):
    """What is asked without any option fixed."""

    model: str
    gpus: str
    options: dict[str, Any]

    def best(self, **fixed: Any) -> Plan | None:
        """The plan, with some options fixed; None where nothing fits."""
        try:
            return memserve.plan.best(self.model, self.gpus, **self.options, **fixed)
        except DoesNotFit:
            return None

    def miss(self) -> DoesNotFit:
        """What is raised for a question that nothing answers."""
        with pytest.raises(DoesNotFit) as missed:
            memserve.plan.best(self.model, self.gpus, **self.options)
        return missed.value

    def closest(self) -> Plan:
        """The nearest miss of a question that nothing answers."""
        return self.miss().closest  # type: ignore[no-any-return, attr-defined]

    def remedies(self) -> list[str]:
        """What would fit; nothing where the question is answered."""
        return [] if self.best() else (self.miss().hint or "").split("; ")


def questions(count: int, seed: int) -> Iterator[Question]:
    """So many questions; a seed gives the same ones."""
    chance = random.Random(seed)
    for _ in range(count):
        model, card, cards = chance.choice(MODELS), chance.choice(CARDS), chance.choice((1, 1, 2, 4, 8))
        options = {"context": chance.choice(CONTEXTS), "concurrency": chance.choice(AT_ONCE)}
        yield Question(model, f"{cards}x{card}", options)


WISHES: tuple[dict[str, Any], ...] = (
    {"ttft": 100}, {"ttft": 1000}, {"tpot": 10}, {"tpot": 40}, {"ttft": 300, "tpot": 20}, {"headroom": 0.1},
    {"headroom": 0.4}, {"offload": True}, {"workload": "1000:200:500"}, {"workload": "20000:100:50"},
    {"workload": "1000:200:500", "deadline": "10min"}, {"workload": "1000:200:500", "budget": 0.2},
)  # fmt: skip
WEIGHED = frozenset({"offload", "deadline", "budget"})
"""Wishes that go before the documented order of losses."""


def wished(count: int, seed: int) -> Iterator[Question]:
    """Questions with one wish more: times, room, layers on the host, a job and its bounds."""
    chance = random.Random(-seed)
    for question in questions(count, seed):
        options = {**question.options, **chance.choice(WISHES)}
        if "workload" in options:
            del options["context"]
        yield question._replace(options=options)


FIXED: dict[str, tuple[Any, ...]] = {
    "kv_dtype": ("fp8", "int8", "auto"),
    "quantization": ("none", "fp8", "w8a8", "gptq", "awq", "w4a16", "nvfp4", "nf4", "int8",
                     "gguf-q8_0", "w4a8"),
    "backend": ("vllm", "sglang", "lmdeploy", "ascend", "mindie", "hf", "llamacpp"),
    "tp": (1, 2, 4, 8),
}  # fmt: skip
EIGHT_BIT = frozenset({"fp8", "w8a8", "w8a16", "int8", "mxfp8", "gguf-q8_0", "gguf-q6_k"})
SLOW = frozenset({"hf", "llamacpp"})


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
    if plan.model.model_type in OVERFLOWS.get(plan.dtype, ()) and not plan.quantization.startswith("gguf"):
        last = 3
    return last, weights + cache + barely


def swifter(plain: Plan | None, other: Plan) -> bool:
    """Of last resorts 8 bits go before 16 where they are twice as fast, by what the plans themselves say."""
    if plain is None or (order(plain), order(other)) != ((order(other)[0], 1), (order(plain)[0], 0)):
        return False
    mine, theirs = (
        one.speed["output_tokens_per_s"]["low" if one.speed["at_most"] else "likely"]  # type: ignore[index]
        for one in (plain, other)
    )
    return {plain.backend, other.backend} == SLOW and mine >= 2 * theirs  # type: ignore[no-any-return]


def fixings(question: Question, chance: random.Random) -> list[dict[str, Any]]:
    """One option of every kind."""
    return [{name: chance.choice(values)} for name, values in FIXED.items()]


WORDS = re.compile(r"not (\S+|16 bit): (fits, but ranks below)?")


def worse(question: Question, chance: random.Random) -> list[dict[str, Any]]:
    """Property 1: the fixed options with which the same question has a better answer."""
    plain = question.best()
    found = []
    for fixed in fixings(question, chance):
        other = question.best(**fixed)
        ordered = not WEIGHED & question.options.keys()
        beaten = plain is None or (ordered and other is not None and order(plain) > order(other))
        if other is not None and beaten and not swifter(plain, other):
            found.append(fixed)
    return found


def false_reasons(question: Question) -> tuple[int, list[str]]:
    """Property 2: how many "not X" are said, and those that are false when X is asked for."""
    plain = question.best() or question.closest()
    said = list(filter(None, map(WORDS.match, plain.reasons)))
    wrong = []
    for one in said:
        quantization = "none" if one[1] == "16 bit" else one[1]
        if (question.best(quantization=quantization) is not None) != bool(one[2]):
            wrong.append(one.string)
    return len(said), wrong


def false_remedies(question: Question, fixed: dict[str, Any]) -> tuple[int, list[str]]:
    """How many remedies are named for eight times the requests, and those that do not fit when asked."""
    wanted = {**question.options, **fixed, "concurrency": question.options["concurrency"] * 8}
    tight = question._replace(options=wanted)
    tried, wrong = 0, []
    for remedy in tight.remedies():
        option = re.match(r"--([a-z-]+)(?: (\S+))?: ", remedy)
        if option is None:
            continue
        tried += 1
        if option[1] == "gpus":
            asked = tight._replace(gpus=option[2])
        else:
            value = True if option[2] is None else int(option[2]) if option[2].isdigit() else option[2]
            asked = tight._replace(options={**wanted, option[1].replace("-", "_"): value})
        if asked.best() is None:
            wrong.append(remedy)
    return tried, wrong
