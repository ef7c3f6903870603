"""python -m memserve.serve: from a plan to a running server and a clean end."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import memserve
from memserve.engines.installed import program_of
from memserve.serve.server import answers

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "memserve.serve"]


def _plan(folder: Path, **fields: Any) -> str:
    file = folder / "plan.json"
    file.write_text(json.dumps({"schema": 1, "fits": True, "plan": fields}))
    return str(file)


def _said(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=120, check=False)


def test_from_plan_to_server_to_a_clean_end(vllm: list[str], tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    words = [*COMMAND, _plan(tmp_path, command=vllm), "--key-file", str(key_file)]
    serving = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert serving.stdout is not None
    ready = serving.stdout.readline()
    assert ready.startswith("ready: http://127.0.0.1:")
    port = int(ready.split(":")[3].partition("/")[0])
    key = key_file.read_text().strip()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert answers("127.0.0.1", port, "/health", key)
    serving.send_signal(signal.SIGTERM)
    out, err = serving.communicate(timeout=120)
    assert serving.returncode == 0
    assert key not in ready + out + err
    time.sleep(0.1)
    assert not answers("127.0.0.1", port, "/health", key)


def test_a_dead_engine_is_exit_1_in_one_line(vllm: list[str], tmp_path: Path) -> None:
    done = _said(_plan(tmp_path, command=vllm, env={"MOOD": "dies"}), "--allow", "MOOD")
    assert done.returncode == 1
    assert "out of memory" in done.stderr
    assert "Traceback" not in done.stderr


def test_out_of_memory_is_told_with_what_the_planner_would_change(vllm: list[str], tmp_path: Path) -> None:
    plan = memserve.plan.best("llama-8b", "1xL4", backend="vllm").to_dict()
    answer = {"plan": plan, "model": plan["model"], "machine": plan["machine"]}
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({**answer, "plan": {**plan, "env": {"MOOD": "dies"}, "install": ""}}))
    done = _said(str(file), "--allow", "MOOD")
    assert done.returncode == 1
    assert "out of memory" in done.stderr
    assert "the planner would change --gpu-memory-utilization" in done.stderr
    assert "so: vllm serve meta-llama/Llama-3.1-8B-Instruct" in done.stderr


def test_a_plan_for_several_nodes_is_not_started_on_one(tmp_path: Path) -> None:
    plan = memserve.plan.best("deepseek-v3", "2x8xH100").to_dict()
    assert {one["node"] for one in plan["nodes"]} == {0, 1}
    done = _said(_plan(tmp_path, **plan))
    assert (done.returncode, "is for 2 nodes" in done.stderr) == (2, True), done.stderr


def test_a_checkpoint_that_must_be_made_first_is_named_with_its_command(tmp_path: Path) -> None:
    made = {"checkpoint": "./x-q4.gguf", "make_checkpoint": "llama-quantize x.gguf x-q4.gguf Q4_K_M"}
    done = _said(
        _plan(tmp_path, command=["python", "-m", "llama_cpp.server", "--model", "./x-q4.gguf"], **made)
    )
    assert done.returncode == 2
    assert "run: llama-quantize" in done.stderr


@pytest.mark.parametrize("line", ["memserve compress {model} --to 2:4 -o out", "rm -r {model}"])
def test_what_is_missing_is_made_when_told_to(tmp_path: Path, line: str) -> None:
    """By our own verb, whose refusal comes through; another command in a plan is never run."""
    (tmp_path / "config.json").write_text("{}")
    making = line.format(model=tmp_path)
    plan = _plan(tmp_path, command=["vllm", "serve", "./out"], checkpoint="./out", make_checkpoint=making)
    done = _said(plan, "--make")
    ours = making.startswith("memserve")
    assert done.returncode == (1 if ours else 2)
    assert ("could not be made" if ours else f"run: {making}") in done.stderr
    dry = _said(plan, "--make", "--dry-run")
    assert (dry.returncode, "vllm serve ./out" in dry.stdout) == ((0, True) if ours else (2, False))
    assert making in dry.stderr and "could not be made" not in dry.stderr
    assert (tmp_path / "config.json").exists()


def test_the_saved_plan_alone_will_do(vllm: list[str], tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"command": vllm, "env": {"MOOD": "dies"}, "model": {"id": "x"}}))
    assert _said(str(file), "--allow", "MOOD").returncode == 1


def test_every_engine_that_the_planner_starts_can_be_started() -> None:
    """A plan that memserve cannot start would be found out only at night; MindIE is a daemon of its own."""
    for backend, gpus in (("vllm", "1xL4"), ("sglang", "1xL4"), ("lmdeploy", "1xL4"), ("hf", "1xL4"),
                          ("llamacpp", "1xL4"), ("ascend", "1x910B2")):  # fmt: skip
        plan = memserve.plan.best("llama-8b", gpus, backend=backend)
        assert program_of(plan.command, backend)[0] == backend
    assert program_of(["vllm", "serve", "x"])[0] == "vllm"


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("content", "meaning"),
    [("{", "is not JSON"), ('{"fits": false, "plan": null}', "holds no plan"),
     ('{"plan": {"command": null}}', "names no command"), ('[1]', "is no plan"), ('[]', "is no plan"),
     ('{"plan": {"command": ["rm", "-rf", "x"]}}', "no server is started by")],
)  # fmt: skip
def test_plans_that_cannot_be_served_are_exit_2(tmp_path: Path, content: str, meaning: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    done = _said(str(file))
    assert (done.returncode, meaning in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr


def test_a_missing_file_is_exit_2(tmp_path: Path) -> None:
    done = _said(str(tmp_path / "none.json"))
    assert done.returncode == 2
    assert "No such file" in done.stderr


def test_a_dry_run_says_what_would_be_done(vllm: list[str], tmp_path: Path) -> None:
    done = _said(_plan(tmp_path, command=vllm, install="pip install vllm==0.19.1"), "--dry-run")
    assert done.stdout.splitlines() == ["pip install vllm==0.19.1", "vllm serve tiny"]


@pytest.mark.parametrize("words", [(), ("--port", "x", "plan.json"), ("--nonsense",)])
def test_malformed_words_are_exit_2_in_one_line(words: tuple[str, ...]) -> None:
    said = _said(*words)
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1 and len(said.stderr) <= 301
