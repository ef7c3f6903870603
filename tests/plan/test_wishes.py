"""Wishes that cannot be had: each refusal names what the wish itself meets, on the hardware that is named."""

import pytest

import memserve
from memserve.engines import installed
from memserve.engines.rules.judge import about_dtype
from memserve.errors import DoesNotFit
from memserve.plan.library import answered
from memserve.plan.query import Query
from memserve.plan.tasks.models import TASKS, models

OLD = ("V100", "P100", "GTX1080Ti", "T4", "M40", "310P", "910A", "MI210")
WISHES = ({"kv_dtype": "fp8"}, {"kv_dtype": "int8"}, {"quantization": "nvfp4"}, {"quantization": "fp8"},
          {"quantization": "none", "kv_dtype": "fp8"})  # fmt: skip


@pytest.mark.parametrize("card", OLD)
def test_no_wish_is_refused_for_a_dtype_that_another_could_take_the_place_of(card: str) -> None:
    for model in ("llama-8b", "qwen3-4b", "Qwen/Qwen3-Embedding-0.6B"):
        for wish in WISHES:
            closest = answered(model, f"1x{card}", Query.of(**wish)).closest  # type: ignore[arg-type]
            if closest is not None:
                rules = installed.named(closest.backend).rules
                assert not about_dtype(rules, closest.rule), (model, card, wish, closest.reason)


def test_an_fp8_cache_on_volta_is_refused_as_that() -> None:
    with pytest.raises(DoesNotFit, match="FP8 KV cache"):
        memserve.plan.best("llama-8b", "1xV100", kv_dtype="fp8")


@pytest.mark.parametrize("objective", ["throughput", "latency", "cost"])
def test_figures_of_one_unit_are_ranked_among_themselves(objective: str) -> None:
    found = [plan.model for plan in models("1xT4", objective=objective, backend="hf", context=2048).plans]
    tasks = [TASKS.index("rerank" if one.reranks else "embed" if one.embeds else "generate") for one in found]
    assert tasks == sorted(tasks) and len(set(tasks)) == 3
