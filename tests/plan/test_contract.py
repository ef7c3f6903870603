"""The command line as other programs call it: one JSON object, exit codes 0, 1 and 2, one line of error."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PLAN_KEYS = {
    "backend", "engine_version", "quantization", "dtype", "tensor_parallel", "pipeline_parallel",
    "data_parallel", "kv_dtype", "context", "concurrency", "install", "command", "env",
    "memory_gib_per_card", "kv_cache_tokens", "max_concurrency", "speed", "cost", "reasons",
}  # fmt: skip
MEMORY_KEYS = {"usable", "weights", "activation", "non_torch", "graphs", "kv_cache", "free"}
REJECTED_KEYS = {"backend", "engine_version", "quantization", "tensor_parallel", "rule", "reason", "source"}


def planned(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "memserve.plan", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answered(*words: str, code: int = 0) -> dict[str, Any]:
    done = planned(*words, "--json")
    assert done.returncode == code, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def check_plan(plan: dict[str, Any], *, remote: bool = False) -> None:
    assert set(plan) >= PLAN_KEYS
    assert isinstance(plan["command"], list) and all(isinstance(word, str) for word in plan["command"])
    assert isinstance(plan["env"], dict)
    if remote:
        assert plan["memory_gib_per_card"] is None and plan["tensor_parallel"] is None
        return
    memory = plan["memory_gib_per_card"]
    assert set(memory) == MEMORY_KEYS
    used = memory["weights"] + memory["activation"] + memory["non_torch"] + memory["kv_cache"]
    assert used <= memory["usable"] + 1e-3
    assert plan["install"]


def check_speed(speed: dict[str, Any]) -> None:
    for name in ("ttft_ms", "tpot_ms", "output_tokens_per_s"):
        assert 0 < speed[name]["low"] <= speed[name]["likely"] <= speed[name]["high"]


def test_the_users_own_example() -> None:
    answer = answered("llama-70b", "--gpus", "4xV100")
    plan = answer["plan"]
    assert answer["schema"] == 1 and answer["fits"] is True
    assert answer["model"]["parameters"] == answer["model"]["active_parameters"] == 70553706496
    assert answer["machine"]["nodes"] == 1 and answer["machine"]["cards_per_node"] == 4
    assert (plan["backend"], plan["engine_version"]) == ("vllm", "0.19.1")
    assert (plan["quantization"], plan["dtype"], plan["tensor_parallel"]) == ("gptq", "float16", 4)
    assert plan["command"][:2] == ["vllm", "serve"] and "GPTQ" in plan["command"][2]
    assert plan["context"] == 8192 and plan["largest_context"] > 8192
    assert "vllm==0.19.1" in plan["install"] and "torch==2.10.0" in plan["install"]
    assert any("V100-32GB" in reason for reason in plan["reasons"])
    check_plan(plan)
    check_speed(plan["speed"])
    assert plan["cost"]["usd_per_hour"] > 0


def test_the_alternative_and_the_rejected_of_that_example() -> None:
    answer = answered("llama-70b", "--gpus", "4xV100")
    lmdeploy = next(plan for plan in answer["alternatives"] if plan["backend"] == "lmdeploy")
    assert lmdeploy["quantization"] in ("gptq", "awq") and lmdeploy["tensor_parallel"] == 4
    assert "lmdeploy==0.18.0" in lmdeploy["install"]
    assert "torch==2.10.0 torchvision==0.25.0" in lmdeploy["install"]
    for plan in answer["alternatives"]:
        check_plan(plan)
    rejected = answer["rejected"]
    assert all(set(row) >= REJECTED_KEYS and row["reason"] and row["source"] for row in rejected)
    rules = {(row["backend"], row["engine_version"], row["quantization"], row["rule"]) for row in rejected}
    assert ("vllm", "0.19.1", "awq", "awq-sm75") in rules
    assert ("vllm", "0.19.1", "fp8", "fp8-sm75") in rules
    assert ("vllm", "0.19.1", "w4a16", "w4a16-sm75") in rules
    assert ("vllm", "0.19.1", "none", "bf16-capability") in rules
    assert ("vllm", "0.19.1", "none", "memory") in rules
    assert ("sglang", "0.5.23", "gptq", "sglang-sm75") in rules
    assert ("vllm", "0.33.0", "gptq", "vllm-sm75") in rules


def test_a_layout_that_rules_forbid_exits_1_with_the_closest() -> None:
    answer = answered("llama-70b", "--gpus", "4xV100", "--tp", "3", code=1)
    assert answer["fits"] is False and answer["plan"] is None
    assert answer["closest"]["tensor_parallel"] == 3 and answer["closest"]["rule"] == "heads"
    assert answer["remedies"] and answer["rejected"]


def test_what_no_memory_holds_exits_1_with_what_would_fit() -> None:
    answer = answered("llama-70b", "--gpus", "1xT4", "--backend", "vllm", code=1)
    assert answer["closest"]["rule"] == "memory"
    check = answer["closest"]["memory_gib_per_card"]
    assert check["weights"] > check["usable"]
    assert any("xT4" in remedy for remedy in answer["remedies"])


@pytest.mark.sampled(11)
@pytest.mark.parametrize(
    "words",
    [
        ("llama-8b", "--gpus", "4xV10"), ("llama-8b", "--gpus", "1xL4,1xT4"), ("llama-8b", "--gpus", "0xL4"),
        ("llama-8b", "--gpus", ""), ("no-such-model-at-all", "--gpus", "1xL4"), ("--gpus", "1xL4"),
        ("llama-8b", "--gpus", "1xL4", "--context", "-5"), ("llama-8b", "--gpus", "1xL4", "--tp", "two"),
        ("llama-8b", "--gpus", "1xL4", "--quantization", "q9"), ("llama-8b", "--gpus", "1xL4", "--nope"),
        ("llama-8b", "--gpus", "1xL4", "--backend", "vlm"), ("llama-8b", "--gpus", "1xL4", "--kv-dtype", "x"),
        ("llama-8b", "--gpus", "1xL4", "--objective", "speed"), ("/nowhere/config.json", "--gpus", "1xL4"),
        ("llama-8b", "extra", "--gpus", "1xL4"), ("llama-8b", "--gpus", "1xL4", "--plot", "x.pdf"),
        ("--check", "rm -rf /", "--gpus", "1xL4"), ("--check", "", "--gpus", "1xL4"),
        ("llama-8b", "--gpus", "1xL4", "--train", "lora", "bach=1"), ("--calibrate", "/nowhere.log"),
        ("llama-8b", "--gpus", "1xL4\x00\n\u202e" * 200), ("x" * 5000, "--gpus", "1xL4"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_malformed_calls_exit_2_with_one_short_line(words: tuple[str, ...], form: tuple[str, ...]) -> None:
    clean = tuple(word.replace("\x00", "\x01") for word in words)
    done = planned(*clean, *form)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.endswith("\n") and done.stderr.count("\n") == 1
    assert len(done.stderr) <= 301 and "Traceback" not in done.stderr


def test_bad_configs_exit_2(tmp_path: Path) -> None:
    for text in ("", "{", "[]", '{"architectures": ["LlamaForCausalLM"]}', '{"hidden_size": "many"}', "\x00"):
        file = tmp_path / "config.json"
        file.write_text(text)
        done = planned(str(file), "--gpus", "1xL4", "--json")
        assert done.returncode == 2 and done.stderr.count("\n") == 1, text


def test_without_context_the_models_maximum_bounds_it() -> None:
    assert answered("facebook/opt-1.3b", "--gpus", "1xL4")["plan"]["context"] == 2048


def test_providers_have_no_memory_and_no_layout() -> None:
    answer = answered("gpt-4o-mini", "--backend", "openai", "--gpus", "1xL4")
    check_plan(answer["plan"], remote=True)
    assert answer["plan"]["cost"]["usd_per_mtok_output"] == 0.6
    assert answer["model"]["parameters"] is None


def test_check_judges_a_command() -> None:
    command = "vllm serve meta-llama/Llama-3.1-8B-Instruct --tensor-parallel-size 2 --max-model-len 8192"
    plan = answered("--check", command, "--gpus", "2xL4")["plan"]
    assert plan["command"][:3] == ["vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct"]
    check_plan(plan)
    refused = answered("--check", f"{command} --dtype bfloat16", "--gpus", "2xV100", "--engine-version",
                       "0.19.1", code=1)  # fmt: skip
    assert refused["closest"]["outcome"] == "refused" and refused["closest"]["rule"] == "bf16-capability"
    assert refused["closest"]["memory_gib_per_card"]["weights"] > 0


def test_text_is_plain_in_a_pipe_and_tells_the_reasons() -> None:
    done = planned("llama-70b", "--gpus", "4xV100", "--why")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout and "│" not in done.stdout
    for words in ("vllm 0.19.1", "tensor 4", "rejected", "AWQ in vLLM needs compute capability 7.5"):
        assert words in done.stdout


def test_help_exits_0() -> None:
    assert planned("--help").returncode == 0


@pytest.mark.slow
def test_a_quantized_plan_names_a_checkpoint_or_the_way_to_one() -> None:
    known = answered("llama-70b", "--gpus", "4xV100")["plan"]
    assert known["checkpoint"] == known["command"][2] and known["checkpoint_source"]
    made = answered("openchat/openchat_3.5", "--gpus", "1xL4", "--quantization", "w4a16")["plan"]
    assert (
        made["make_checkpoint"]
        == "memserve compress openchat/openchat_3.5 --to w4a16 -o ./openchat_3.5-w4a16"
    )


@pytest.mark.slow
def test_stored_quantization_is_reported_and_binding() -> None:
    plan = answered("Qwen/Qwen2.5-7B-Instruct-AWQ", "--gpus", "1xL4")["plan"]
    assert plan["quantization"] == "awq"
    refused = answered("Qwen/Qwen2.5-7B-Instruct-AWQ", "--gpus", "1xL4", "--quantization", "none", code=1)
    assert refused["closest"]["rule"] == "stored-quantization"
