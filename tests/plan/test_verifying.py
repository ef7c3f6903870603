"""`memserve plan --verify`: predicted beside measured, the row of truth, what this machine cannot start."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import memserve
from memserve.plan.__main__ import main
from memserve.plan.tasks import verifying
from memserve.plan.tasks.options import parse

GIB = 2**30
PLAN = memserve.plan.best("Qwen/Qwen2.5-0.5B-Instruct", "1xL4", backend="vllm", context=1024)


def report(measured: float = 20.0, **log: Any) -> dict[str, Any]:
    told = {"low": 10.0, "likely": 20.0, "high": 40.0}
    row = {"concurrency": 1, "requests": 4, "failed": 0, "ttft_ms": {"mean": measured}, "tpot_ms": None,
           "output_tokens_per_s": measured, "predicted": dict.fromkeys(verifying.FIGURES, told)}  # fmt: skip
    return {"results": [row], "workload": {"name": "256:64:4"},
            "memory": {"process_gib": 1.0, "startup_log": log or None}}  # fmt: skip


@given(measured=st.floats(0.01, 1e6))
def test_off_and_inside_follow_from_the_figures(measured: float) -> None:
    first, none, last = verifying.Verified(PLAN, report(measured)).rows()
    assert first["inside"] is last["inside"] is (10 <= measured <= 40)
    assert first["off"] == pytest.approx(measured / 20 - 1, abs=1e-3)
    assert (none["measured"], none["off"], none["inside"]) == (None, None, None)


def test_the_engine_s_own_log_is_set_beside_the_memory() -> None:
    tokens = PLAN.kv_cache_tokens
    assert tokens and PLAN.memory_gib_per_card
    weights = round(PLAN.memory_gib_per_card["weights"] * GIB)
    found = {row["name"]: row for row in verifying.Verified(
        PLAN, report(weights=weights, kv_tokens=tokens * 2)).rows()}  # fmt: skip
    assert found["weights, GiB a card"]["inside"] and abs(found["weights, GiB a card"]["off"]) < 1e-3
    assert found["KV cache, tokens"]["off"] == pytest.approx(1) and not found["KV cache, tokens"]["inside"]


def test_a_row_of_truth_holds_no_path(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "vocab_size": 512, "max_position_embeddings": 512, "model_type": "llama",
             "architectures": ["LlamaForCausalLM"]}  # fmt: skip
    (folder := tmp_path / "mine").mkdir()
    (folder / "config.json").write_text(json.dumps(sizes))
    plan = memserve.plan.best(str(folder), "1xL4", backend="vllm")
    row = verifying.Verified(plan, report()).to_dict()
    assert str(tmp_path) not in json.dumps(row)
    assert (row["model"]["id"], row["plan"]["backend"], row["machine"]["card"]) == ("mine", "vllm", "L4")
    assert {"low", "likely", "high"} <= set(row["rows"][0]["predicted"])


@pytest.mark.parametrize("words", [
    ["llama-8b", "--verify"], ["--verify", "llama-8b"], ["--verify", "t.json", "llama-8b"],
])  # fmt: skip
def test_the_model_stands_where_one_likes(words: list[str]) -> None:
    found = parse(words)
    assert (found.model, found.verify) == ("llama-8b", "t.json" if len(words) == 3 else "")


def test_cards_that_are_not_here_are_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llama-8b", "--gpus", "8x910B4", "--backend", "ascend", "--verify"]) == 1
    assert "the plan is for 8x910B4: run it where those cards are" in capsys.readouterr().err
    assert main(["gpt-4o-mini", "--backend", "openai", "--verify"]) == 2
    assert "memserve bench" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "code", "said"), [
    (["--quantization", "gguf-q4_k_m", "--backend", "llamacpp", "--verify"], 1, "run: memserve compress"),
    (["--backend", "hf", "--context", "512", "--verify", "/no/such/row.json"], 2, "its folder is not there"),
])  # fmt: skip
def test_what_would_fail_in_the_end_is_told_before_anything_starts(
    words: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
        "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1000,
        "max_position_embeddings": 512, "torch_dtype": "bfloat16"}))  # fmt: skip
    assert main([str(tmp_path), "--gpus", "cpu", *words]) == code
    assert said in capsys.readouterr().err


def test_an_engine_that_does_not_start_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        assert words[:3] == [sys.executable, "-m", "memserve.bench"] and Path(words[3]).exists()
        return subprocess.CompletedProcess(words, 1)

    monkeypatch.setattr(subprocess, "run", run)
    words = ["smollm2", "--gpus", "cpu", "--backend", "hf", "--context", "512"]
    assert main([*words, "--verify", str(tmp_path / "row.json")]) == 1
    assert "ended with 1" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.engine("hf")
def test_the_whole_way_with_a_tiny_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tiny_hf import causal

    row = tmp_path / "row.json"
    words = [str(causal(tmp_path / "tiny")), "--gpus", "cpu", "--backend", "hf", "--context", "256"]
    assert main([*words, "--workload", "16:32:2", "--python", sys.executable, "--verify", str(row)]) == 0
    found = json.loads(row.read_text())
    assert "predicted and measured" in capsys.readouterr().out
    assert all(one["measured"] > 0 for one in found["rows"])
