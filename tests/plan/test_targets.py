"""`--ttft`, `--tpot`: what is predicted to miss a target is no plan; `--like`, `--batch`."""

from __future__ import annotations

import random
import re

import pytest
from tests.support.questions import Question, false_reasons

import memserve
from memserve.errors import DoesNotFit, InvalidInput
from memserve.missing import install_line
from memserve.plan.library import answered
from memserve.plan.query import Query
from memserve.plan.tasks.comparing import compare

MODELS = ("llama-8b", "qwen3-8b", "qwen3-32b", "llama-70b", "gpt-oss-20b")
MACHINES = ("1xL4", "1xA100", "2xH100", "4xV100", "1xRTX4090", "8x910B4")


def drawn(seed: int) -> tuple[str, str, dict[str, float]]:
    draw = random.Random(seed)
    options = {"concurrency": draw.choice([1, 1, 8, 32])}
    if draw.random() < 0.7:
        options["tpot"] = draw.choice([5, 15, 30, 60, 120])
    if draw.random() < 0.7:
        options["ttft"] = draw.choice([50, 200, 1000, 4000])
    return draw.choice(MODELS), draw.choice(MACHINES), options


@pytest.mark.sampled(8)
@pytest.mark.parametrize("seed", range(30))
def test_a_plan_meets_its_targets_and_a_miss_says_what_would(seed: int) -> None:
    model, gpus, options = drawn(seed)
    targets = {name: ms for name, ms in options.items() if name != "concurrency"}
    answer = answered(model, gpus, Query.of(**options))
    for one in (*answer.plans, *answer.alternatives):
        assert all(one.speed[f"{name}_ms"]["likely"] <= ms * 1.001 for name, ms in targets.items())
    for plan in answer.plans:
        assert all(any(f"--{name} {ms:g}" in said for said in plan.reasons) for name, ms in targets.items())
    for remedy in answer.remedies:
        words = re.match(r"((?:--(?:ttft|tpot|concurrency) \d+ ?)+):", remedy)
        changed = {name: int(ms) for name, ms in re.findall(r"--(\w+) (\d+)", words[1] if words else "")}
        assert not changed or memserve.plan.best(model, gpus, **{**options, **changed}).fits
        if "open:" in remedy:
            kept = {name: ms for name, ms in options.items() if f"--{name}" not in remedy}
            assert memserve.plan.best(model, gpus, **kept).fits
    assert false_reasons(Question(model, gpus, options))[1] == []


@pytest.mark.parametrize(("gpus", "bound"), [
    ("1xL4", {"deadline": "40m"}), ("1xL4", {"budget": 0.5}), ("1xA10G", {"deadline": "20m"}),
    ("1xL4", {"deadline": "1m"}), ("1xL4", {"deadline": "3h"}),
])  # fmt: skip
def test_a_job_is_done_in_time_where_something_that_fits_does_it(gpus: str, bound: dict[str, object]) -> None:
    """By the likely figures; what does it in time for a fixed option does it for none."""
    question = Question("llama-8b", gpus, {"workload": "1000:200:5000", "concurrency": 1, **bound})

    def late(plan: memserve.plan.Plan) -> bool:
        hours, usd = plan.workload["hours"]["likely"], plan.workload["usd"]["likely"]
        limit = {"40m": 40, "20m": 20, "1m": 1, "3h": 180}.get(str(bound.get("deadline")), 1e9)
        return bool(hours * 60 > limit or usd > bound.get("budget", 1e9))

    plain = question.best()
    fixed = [question.best(quantization=word) for word in ("none", "fp8", "w8a8", "gptq", "awq", "nf4")]
    assert plain is not None and late(plain) == all(late(plan) for plan in fixed if plan is not None)
    assert false_reasons(question)[1] == []


@pytest.mark.parametrize("option", [{"rpm": 5}, {"tpm": 1000}, {"batch": True}])
def test_what_only_a_provider_heeds_is_left_out_with_it(option: dict[str, object]) -> None:
    with pytest.raises(DoesNotFit, match=f"leave --backend, --{next(iter(option))} open") as missed:
        memserve.plan.best("llama-8b", "1xL4", backend="anthropic", workload="1000:100:10", **option)
    assert missed.value.closest is not None
    assert memserve.plan.best("llama-8b", "1xL4", workload="1000:100:10").fits


def test_no_refusal_for_speed_is_false() -> None:
    with pytest.raises(DoesNotFit, match="further token takes") as missed:
        memserve.plan.best("llama-8b", "1xL4", tpot=5)
    assert "too slow" in str(missed.value.closest)
    plan = memserve.plan.best("llama-8b", "1xL4", ttft=300)
    assert plan.quantization != "none" and any("16 bit" in one for one in plan.reasons)
    with pytest.raises(DoesNotFit):
        memserve.plan.best("llama-8b", "1xL4", ttft=300, quantization="none")


@pytest.mark.parametrize("options", [{"ttft": 0}, {"tpot": "fast"}, {"tpot": True}, {"ttft": float("inf")}])
def test_a_target_is_milliseconds(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=r"milliseconds|a number above 0"):
        memserve.plan.best("llama-8b", "1xL4", **options)


def test_a_target_has_no_meaning_for_vectors_and_providers() -> None:
    with pytest.raises(InvalidInput, match="writes no tokens"):
        memserve.plan.best("BAAI/bge-m3", "1xL4", ttft=100)
    with pytest.raises(DoesNotFit, match="no provider states"):
        memserve.plan.best("gpt-4o-mini", ttft=100)


def test_a_fine_tune_is_planned_by_the_shapes_of_another() -> None:
    known = memserve.plan.best("mistral-7b", "1xL4")
    tuned = memserve.plan.best("someuser/MyMistral-finetune-7B", "1xL4", like="mistral-7b")
    assert tuned.memory_gib_per_card == known.memory_gib_per_card
    assert "someuser/MyMistral-finetune-7B" in tuned.command
    assert not tuned.model.exact and "estimated" in str(tuned)
    small = memserve.plan.best(
        "someuser/MyMistral-finetune-7B", "1xT4-16GB", like="mistral-7b", quantization="awq"
    )
    assert small.checkpoint.make


def test_a_known_model_is_planned_as_itself() -> None:
    with pytest.raises(InvalidInput, match="known as meta-llama"):
        memserve.plan.best("llama-8b", "1xL4", like="qwen3-8b")
    with pytest.raises(InvalidInput, match="its provider's"):
        memserve.plan.best("gpt-4o-mini", "1xL4", like="qwen3-8b")


@pytest.mark.parametrize(("option", "value"), [
    ("engine_version", "5"), ("quantization", "awq"), ("tp", 4), ("pp", 3), ("dp", 2), ("kv_dtype", "fp8"),
    ("trust_remote_code", True), ("headroom", "10%"), ("offload", True),
])  # fmt: skip
@pytest.mark.parametrize(("model", "backend"), [("gpt-4o-mini", None), ("llama-8b", "openai")])
def test_a_provider_heeds_nothing_that_is_of_cards(
    model: str, backend: str | None, option: str, value: object
) -> None:
    with pytest.raises(InvalidInput, match=f"leave --{option.replace('_', '-')} out"):
        memserve.plan.best(model, "1xL4", backend=backend, **{option: value})


@pytest.mark.parametrize(("option", "value"), [("rpm", 5), ("tpm", 1000), ("batch", True)])
def test_cards_heed_nothing_that_is_of_a_provider(option: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"leave --{option} out"):
        memserve.plan.best("llama-8b", "1xL4", workload="locomo", **{option: value})
    both = compare("llama-8b", ["1xL4", "openai:gpt-4o-mini"], workload="locomo", **{option: value})
    assert all(one.job for one in both.entries)


def test_a_provider_takes_no_longer_prompt_than_it_lists() -> None:
    assert memserve.plan.best("gpt-4o-mini", context=128_000).fits
    for wish in ({"context": 500_000}, {"workload": "500000:10:3"}):
        with pytest.raises(DoesNotFit, match="takes 128000 tokens of a prompt and 500000"):
            memserve.plan.best("gpt-4o-mini", "1xL4", **wish)
    with pytest.raises(DoesNotFit, match="leave --backend open"):  # what is of cards is no remedy
        memserve.plan.best("llama-8b", "1xL4", backend="anthropic")


def test_a_provider_needs_this_memserve_alone() -> None:
    assert memserve.plan.best("gpt-4o-mini").install == install_line()
    assert "[" not in install_line().rpartition("/")[2]


def test_batches_are_priced_as_such() -> None:
    whole, batch = (
        compare(None, ["openai:gpt-4o-mini"], workload="locomo", batch=batch).entries[0].job
        for batch in (None, True)
    )
    assert batch["usd"]["likely"] < whole["usd"]["likely"]
    assert any("24 hours" in note for note in batch["notes"])
