"""`--offload`: what the cards do not hold stays with the processor, at a speed that says so."""

from __future__ import annotations

from dataclasses import replace

import pytest

import memserve
from memserve.engines import installed
from memserve.errors import DoesNotFit
from memserve.hardware import parse
from memserve.hardware.machine import GIB
from memserve.memory import Split, stage_bytes, storage
from memserve.plan.library import answered
from memserve.plan.query import Query
from memserve.plan.search.judging import held

QUESTIONS = [
    ("llama-70b", "1xRTX4090"), ("llama-70b", "2xRTX3060"), ("qwen3-32b", "1xRTX3060"),
    ("mixtral-8x7b", "1xRTX3090"), ("qwen3-30b-a3b", "1xRTX3060"),
]  # fmt: skip
CHECKED = "llama-server -hf lmstudio-community/Llama-3.3-70B-Instruct-GGUF:Q4_K_M -c 8192 -ngl"


@pytest.mark.parametrize(("model", "gpus"), QUESTIONS)
def test_as_few_layers_as_need_be_stay_with_the_processor(model: str, gpus: str) -> None:
    plan = memserve.plan.best(model, gpus, offload=True)
    away, engine = plan.deployment.host_layers, installed.named(plan.backend)
    assert 0 < away < len(plan.model.blocks)
    fewer = replace(plan.deployment, host_layers=away - 1)
    assert not held(engine, plan.model, plan.machine, fewer).fits
    whole = stage_bytes(plan.model, Split(), storage(plan.model, plan.quantization, plan.dtype))[0]
    assumed = {one["name"]: one["value"] for one in plan.assumptions}
    cards = plan.memory_gib_per_card["weights"] * plan.deployment.layout.pipeline
    assert cards + assumed["host_memory_gib"] >= whole / GIB * 0.95
    assert assumed["host_ram_gib"] >= 64


@pytest.mark.parametrize(("model", "gpus"), QUESTIONS)
def test_the_command_reads_back_to_the_same_figures(model: str, gpus: str) -> None:
    for requests in (1, 2):
        plan = memserve.plan.best(model, gpus, offload=True, concurrency=requests)
        again = memserve.plan.check(plan.command, gpus, context=plan.context, concurrency=requests)
        assert again.memory_gib_per_card == plan.memory_gib_per_card


def test_speed_falls_with_each_layer_that_stays() -> None:
    paces = []
    for gpus in ("2xRTX4090", "1xRTX4090", "1xRTX3060"):
        plan = memserve.plan.best("llama-70b", gpus, quantization="gguf-q4_k_m", offload=True)
        paces.append(plan.speed["output_tokens_per_s"]["likely"])
        spread = plan.speed["tpot_ms"]
        assert spread["low"] < spread["likely"] < spread["high"]
    assert paces[0] > 3 * paces[1] > 3 * paces[2]
    assert 1 < paces[1] < 6  # 20 GB at a desktop's 58 GB/s


def test_it_is_asked_for_and_a_miss_names_it() -> None:
    with pytest.raises(DoesNotFit) as missed:
        memserve.plan.best("llama-70b", "1xRTX4090")
    assert "--offload: llamacpp" in (missed.value.hint or "")
    assert memserve.plan.best("llama-8b", "1xRTX4090", offload=True).deployment.host_layers == 0


def test_the_host_must_hold_what_stays() -> None:
    with pytest.raises(DoesNotFit, match="RAM"):
        memserve.plan.best("llama-405b", "1xRTX4090", offload=True)
    small = replace(parse("1xRTX4090"), host_memory=8 * GIB)
    with pytest.raises(DoesNotFit, match=r"8\.00 GiB of RAM"):
        memserve.plan.best("llama-70b", small, offload=True)


def test_what_is_passed_over_is_said_truly() -> None:
    found = answered("llama-70b", "1xRTX4090", Query.of(offload=True))
    assert any("not gguf-q8_0: fits, but ranks below: 54 of its" in one for one in found.plan.reasons)
    assert memserve.plan.best("llama-70b", "1xRTX4090", offload=True, quantization="gguf-q8_0").fits


@pytest.mark.parametrize(("layers", "fits"), [(0, True), (40, True), (60, False), (999, False)])
def test_a_command_is_judged_by_the_layers_that_it_puts_on_the_card(layers: int, fits: bool) -> None:
    plan = memserve.plan.check(f"{CHECKED} {layers}", "1xRTX4090")
    assert (plan.fits, plan.not_counted) == (fits, ())
