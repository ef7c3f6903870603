"""`vllm run-batch` behind a run: started once, what it wrote counts, what it did not is asked again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from batch_server import FAST, ROOT
from waiting import until

import memserve
from memserve.errors import EngineFailed
from memserve.run import batch_service, run

if TYPE_CHECKING:
    from collections.abc import Callable

ENGINE = """#!{python}
import json, os, pathlib, sys, time
words, home = sys.argv[1:], pathlib.Path(os.environ["VLLM_STAND_IN"])
read, written = words[words.index("-i") + 1], words[words.index("-o") + 1]
with open(home / "starts", "a") as file:
    file.write(json.dumps([words, sorted(os.environ)]) + chr(10))
mood = (home / "mood").read_text() if (home / "mood").exists() else ""
if mood == "dies":
    print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"); sys.exit(3)
if mood == "quiet":
    sys.exit(0)
lines = [json.loads(line) for line in open(read)]
with open(written, "w") as file:
    for place, line in enumerate(lines):
        text = line["body"]["messages"][0]["content"]
        message = {{"role": "assistant", "content": text.upper()}}
        body = {{"id": "x", "object": "chat.completion", "model": line["body"]["model"],
            "choices": [{{"index": 0, "message": message, "finish_reason": "stop"}}],
            "usage": {{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}}}
        row = {{"id": "v", "custom_id": line["custom_id"], "error": None,
               "response": {{"status_code": 200, "request_id": "r", "body": body}}}}
        if text == "bad":
            row["response"] = {{"status_code": 400, "request_id": "r", "body": None}}
            row["error"] = {{"error": {{"message": "bad prompt", "type": "BadRequestError", "code": 400}}}}
        if mood == "half" and place == len(lines) // 2:
            file.write(json.dumps(row)[:40]); file.flush()
            (home / "halfway").touch(); time.sleep(600)
        print(json.dumps(row), file=file, flush=True)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-in keeps what it was started with, and its mood."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(ENGINE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("VLLM_STAND_IN", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.delenv("MEMSERVE_ENVIRONMENTS", raising=False)
    monkeypatch.setattr(batch_service, "FIRST_POLL", 0.05)
    return tmp_path


def _starts(home: Path) -> list[Any]:
    return [json.loads(line) for line in (home / "starts").read_text().splitlines()]


def _left(home: Path) -> list[str]:
    return [path.name for path in (home / "cache" / "memserve" / "batches").iterdir()]


def _run(home: Path, prompts: list[str], **options: Any) -> Any:
    with memserve.generator("m", backend="vllm", batch=True, **options) as generator:
        return run(prompts, home / "a.jsonl", generator=generator, batch=True, progress=False)


def _texts(home: Path) -> list[str]:
    return sorted(json.loads(line)["text"] for line in (home / "a.jsonl").read_text().splitlines())


def test_one_start_with_its_flags_and_no_key(home: Path) -> None:
    summary = _run(home, ["a", "bad", "c"], tensor_parallel_size=2, enforce_eager=True)
    assert (summary.done, summary.failed, _texts(home)) == (2, 1, ["A", "C"])
    assert "bad prompt" in (home / "a.failed.jsonl").read_text()
    ((words, variables),) = _starts(home)
    assert [words[0], words[1], words[3], *words[5:]] == [
        "run-batch", "-i", "-o", "--model", "m", "--tensor-parallel-size", "2", "--enforce-eager",
    ]  # fmt: skip
    assert "OPENAI_API_KEY" not in variables
    assert not _left(home)


def test_several_files_are_answered_one_after_the_other(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memserve_vllm.batch import RunBatch

    monkeypatch.setattr(RunBatch, "batch_limits", (2, 1 << 20))
    assert _run(home, ["a", "b", "c", "d", "e"]).done == 5
    assert len(_starts(home)) == 3


@pytest.mark.slow
def test_what_a_killed_run_wrote_counts_and_the_rest_is_asked_again(home: Path) -> None:
    """kill -9 of the run while the answers are being written."""
    (home / "r.jsonl").write_text("".join(json.dumps({"id": n, "prompt": f"p{n}"}) + "\n" for n in range(6)))
    (home / "mood").write_text("half")
    words = [
        str(home / "r.jsonl"),
        "-o",
        str(home / "a.jsonl"),
        "--batch",
        "--backend",
        "vllm",
        "--model",
        "m",
    ]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "backends")])
    command = [sys.executable, "-c", FAST, *words, "--quiet"]
    env = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until((home / "halfway").exists)
        process.send_signal(signal.SIGKILL)
    assert not (home / "a.jsonl").read_text()
    (home / "mood").unlink()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert _texts(home) == [f"P{n}" for n in range(6)]
    asked = [json.loads(line)["text"] for line in (home / "a.jsonl").read_text().splitlines()]
    assert asked[:3] == ["P0", "P1", "P2"]
    assert len(_starts(home)) == 2
    assert not _left(home)


@pytest.mark.parametrize(("mood", "said"), [("dies", "out of memory"), ("quiet", "without an answer")])
def test_an_engine_that_dies_is_told_and_the_next_run_goes_on(home: Path, mood: str, said: str) -> None:
    (home / "mood").write_text(mood)
    with pytest.raises(EngineFailed, match=said):
        _run(home, ["a", "b"])
    (home / "mood").unlink()
    assert _run(home, ["a", "b"]).done == 2
    assert len(_starts(home)) == 2


def test_it_answers_nothing_but_batches(home: Path) -> None:
    with (
        memserve.generator("m", backend="vllm", batch=True) as generator,
        pytest.raises(memserve.errors.Unsupported, match="batch"),
    ):
        generator.generate("a")
    assert not (home / "starts").exists()


@pytest.mark.engine("vllm")
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_engine_itself(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greedy: Callable[..., list[list[int]]]
) -> None:
    """Answers equal those of the engine in this process; one that does not fit fails alone."""
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    prompts = [*("one two", "three", "four"), "five " * 400]
    options: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "max_model_len": 256}
    with memserve.generator(str(tiny), backend="vllm", batch=True, **options) as generator:
        summary = run(prompts, tmp_path / "a.jsonl", generator=generator, batch=True, progress=False,
                      settings={"max_tokens": 8})  # fmt: skip
    assert (summary.done, summary.failed) == (3, 1)
    assert "ContextOverflow" in (tmp_path / "a.failed.jsonl").read_text()
    found = {
        row["id"]: row["text"] for row in map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    }
    with memserve.generator(str(tiny), backend="vllm", **options) as generator:
        told = [one.text for one in generator.generate(prompts[:3], max_tokens=8)]
    assert [found[key] for key in found] == told
