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

from memserve.serve.health import answers

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "memserve.serve"]


def _plan(folder: Path, **fields: Any) -> str:
    file = folder / "plan.json"
    file.write_text(json.dumps({"schema": 1, "fits": True, "plan": fields}))
    return str(file)


def _said(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60, check=False)


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
    out, err = serving.communicate(timeout=40)
    assert serving.returncode == 0
    assert key not in ready + out + err
    time.sleep(0.1)
    assert not answers("127.0.0.1", port, "/health", key)


def test_a_dead_engine_is_exit_1_in_one_line(vllm: list[str], tmp_path: Path) -> None:
    done = _said(_plan(tmp_path, command=vllm, env={"MOOD": "dies"}))
    assert done.returncode == 1
    assert "out of memory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "meaning"),
    [("{", "is not JSON"), ('{"fits": false, "plan": null}', "holds no plan"),
     ('{"plan": {"command": null}}', "names no command"), ('[1]', "holds no plan"),
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
