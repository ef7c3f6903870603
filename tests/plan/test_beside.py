"""`--beside`: two generators share a machine's cards, and one file starts both."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

import memserve
from memserve.plan.__main__ import main
from memserve.plan.tasks.beside import PORT, beside

VISIBLE = {
    "A100": "CUDA_VISIBLE_DEVICES",
    "910B4": "ASCEND_RT_VISIBLE_DEVICES",
    "MI300X": "HIP_VISIBLE_DEVICES",
}


@pytest.mark.parametrize("gpus", ["8xA100", "2xA100", "8x910B4", "4xMI300X"])
def test_each_half_is_planned_as_a_machine_of_its_own(gpus: str) -> None:
    count, card = gpus.split("x", 1)
    half = int(count) // 2
    found = beside("llama-8b", "qwen3-8b", gpus)
    first, second = found.plans
    for plan, model, begin in ((first, "llama-8b", 0), (second, "qwen3-8b", half)):
        alone = memserve.plan.best(model, f"{half}x{card}")
        assert (plan.backend, plan.quantization, plan.kv_cache_tokens, plan.memory_gib_per_card) == (
            alone.backend, alone.quantization, alone.kv_cache_tokens, alone.memory_gib_per_card)  # fmt: skip
        cards = [int(at) for at in plan.env[VISIBLE[card]].split(",")]
        assert set(cards) <= {*range(begin, begin + half)} and len(cards) == plan.deployment.layout.cards
    assert str(PORT) in second.command and str(PORT) not in first.command


def test_one_compose_file_starts_both(capsys: pytest.CaptureFixture[str]) -> None:
    yaml = pytest.importorskip("yaml", reason="the extra test has it")
    assert main(["llama-8b", "--beside", "llama-8b", "--gpus", "8xA100", "--emit", "compose"]) == 0
    services: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)["services"]
    assert len(services) == 2, "the same model twice has two names"
    devices = [
        one["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for one in services.values()
    ]
    assert devices == [["0", "1", "2", "3"], ["4", "5", "6", "7"]]
    assert [one["ports"] for one in services.values()] == [["127.0.0.1:8000:8000"], ["127.0.0.1:8001:8000"]]
    assert all(shlex.join(one["command"]).count("--port") == 1 for one in services.values())


def test_on_npus_each_service_is_given_its_own_devices(capsys: pytest.CaptureFixture[str]) -> None:
    yaml = pytest.importorskip("yaml", reason="the extra test has it")
    words = ["llama-8b", "--beside", "qwen3-8b", "--gpus", "8x910B4", "--emit", "compose"]
    assert main(words) == 0
    first, second = yaml.safe_load(capsys.readouterr().out)["services"].values()
    assert first["devices"][0] == "/dev/davinci0" and second["devices"][0] == "/dev/davinci4"
    assert not any("VISIBLE" in name for one in (first, second) for name in one.get("environment") or {})


@pytest.mark.parametrize(("words", "code"), [
    (["--gpus", "1xA100"], 2), (["--gpus", "cpu"], 2), (["--gpus", "2x8xA100"], 2),
    (["--gpus", "2xT4", "--quantization", "none"], 1), (["--gpus", "8xA100", "--emit", "slurm"], 2),
    (["--gpus", "2xT4", "--quantization", "none", "--emit", "compose"], 1),
])  # fmt: skip
def test_what_cannot_be_shared_is_refused(
    words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["llama-8b", "--beside", "llama-8b", *words]) == code
    out = capsys.readouterr()
    assert (out.err.count("\n") == 1) or "closest" in out.out


def test_json_has_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llama-8b", "--beside", "qwen3-8b", "--gpus", "8xA100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] and found["plan"]["env"] != found["beside"]["plan"]["env"]
    assert (found["model"]["id"], found["beside"]["model"]["id"]) == (
        "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B")  # fmt: skip
