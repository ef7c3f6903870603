"""Wishes that cannot be had: each refusal names what the wish itself meets, on the hardware that is named."""

import json

import pytest
from extras import need

import memserve
from memserve.engines import installed
from memserve.engines.rules.judge import about_dtype
from memserve.errors import DoesNotFit, InvalidInput, UnknownName
from memserve.memory import training
from memserve.plan.library import answered
from memserve.plan.query import Query
from memserve.plan.tasks.models import TASKS, models
from memserve.speed.__main__ import main as speed

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


def test_the_nearest_miss_is_no_engine_of_other_models() -> None:
    pytest.importorskip(
        "memserve_toy", reason="the example plug-in is not installed: pip install ./examples/plugin"
    )
    with pytest.raises(DoesNotFit) as missed:
        memserve.plan.best("llama-8b", "1xGaudi3")
    assert missed.value.closest.backend != "toy"  # type: ignore[attr-defined]


@pytest.mark.parametrize("gpus", ["1xRTX4090", "any"])
def test_a_model_known_by_its_price_is_not_sent_to_its_provider_when_cards_are_named(
    gpus: str, capsys: pytest.CaptureFixture[str]
) -> None:
    need("genai_prices", "oracles")
    from memserve.plan.__main__ import main

    assert main(["pixtral-12b", "--gpus", gpus]) == 2
    said = capsys.readouterr().err
    assert "mistral's price alone" in said and "config.json" in said and len(said) <= 300
    assert main(["@cf/qwen/qwq-32b", "--gpus", "2xA100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["id"] == "Qwen/QwQ-32B"
    assert memserve.plan.best("gpt-4o-mini", "1xL4").backend == "openai"
    with pytest.raises(UnknownName):
        memserve.plan.best("pixtral-12b", "1xRTX4090")


@pytest.mark.parametrize(
    "gpus", ["8x910B4", "1xTPU-v5e", "1xK80", "1xMI50-16GB", "1xGaudi3", "1xM2-Ultra", "1xL4"]
)
def test_training_asks_for_kernels_that_the_card_has(gpus: str) -> None:
    for row in training.facts()["kernels"]:
        words = {row["option"]: row["value"]}
        found = memserve.plan.train("llama-8b", gpus, **words)
        lacks = found.machine.card.vendor not in row["vendors"] or gpus in ("1xK80", "1xMI50-16GB")
        assert bool(found.need.refused) == lacks and not (lacks and found.fits)
        assert not lacks or not any(row["value"] in remedy for remedy in found.remedies)
    with pytest.raises(InvalidInput, match="provider"):
        memserve.plan.train("gpt-4o-mini", gpus)


@pytest.mark.parametrize("objective", ["throughput", "latency", "cost"])
def test_figures_of_one_unit_are_ranked_among_themselves(objective: str) -> None:
    found = [plan.model for plan in models("1xT4", objective=objective, backend="hf", context=2048).plans]
    tasks = [TASKS.index("rerank" if one.reranks else "embed" if one.embeds else "generate") for one in found]
    assert tasks == sorted(tasks) and len(set(tasks)) == 3


TABLES = ("communication llama-8b", "economics", "compression gpt2 --gpus 1xL4 --prune 2:4")


@pytest.mark.parametrize("said", TABLES)
def test_every_table_of_figures_is_json_too(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = said.split()
    assert speed([*words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert speed([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (told["schema"], told["table"], len(told["rows"])) == (1, words[0], len(lines) - 1)
