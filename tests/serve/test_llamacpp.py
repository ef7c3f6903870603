"""From a plan to a server, and every way out of it, with a real engine: llama.cpp and SmolLM2."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from waiting import until

import memserve
from memserve.errors import AuthenticationFailed
from memserve.serve.server import answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.engine("llamacpp"), pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
HOME = Path(os.environ.get("MEMSERVE_ENGINES") or Path.home() / ".cache" / "memserve" / "engines")
WEIGHTS = HOME / "weights-1"
GGUF = WEIGHTS / "smollm2-gguf" / "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = ["What is the capital of France?", "Name a colour.", "Count to five."]


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., str]:
    """The planner's own answer for this machine, with the file that is here in place of one to be made."""

    def write(context: int = 512) -> str:
        planned = memserve.plan.best(str(WEIGHTS / "smollm2"), "cpu", backend="llamacpp", context=context)
        told = planned.to_dict()
        command = [str(GGUF) if word == told["checkpoint"] else word for word in told["command"]]
        assert str(GGUF) in command
        mine = {**told, "command": command, "checkpoint": str(GGUF), "make_checkpoint": None}
        answer = {"schema": 1, "plan": mine, "model": told["model"], "machine": told["machine"]}
        path = tmp_path / "plan.json"
        path.write_text(json.dumps(answer))
        return str(path)

    return write


def _serve(*words: str, **how: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "memserve.serve", *words, "--python", sys.executable]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def _engines(port: int) -> list[int]:
    """Processes with that port among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if str(port).encode() in words and b"llama_cpp.server" in words:
            found.append(int(path.parent.name))
    return found


@pytest.fixture
def serving(plan: Callable[..., str], tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    with _serve(plan(), "--key-file", str(tmp_path / "key")) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready.startswith("ready: http://127.0.0.1:"), process.communicate(timeout=120)
            yield process, int(ready.split(":")[3].partition("/")[0]), (tmp_path / "key").read_text().strip()
        finally:
            process.kill()


def test_it_answers_with_its_key_only(serving: tuple[Any, int, str]) -> None:
    _, port, key = serving
    url = f"http://127.0.0.1:{port}/v1"
    with memserve.generator("x", backend="openai", base_url=url, api_key=key, dialect="llamacpp") as asked:
        assert asked.generate("Say hello.", max_tokens=4).usage.completion_tokens == 4
    stranger = memserve.generator("x", backend="openai", base_url=url, api_key="not the key")
    with stranger, pytest.raises(AuthenticationFailed):
        stranger.generate("Say hello.", max_tokens=4)
    listening = subprocess.run(["ss", "-ltn"], capture_output=True, text=True, check=False).stdout
    assert not listening or f"127.0.0.1:{port}" in listening


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left(serving: tuple[Any, int, str], sign: signal.Signals) -> None:
    process, port, key = serving
    assert _engines(port)
    process.send_signal(sign)
    out, err = process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGKILL if sign == signal.SIGKILL else 0)
    assert key not in out + err
    until(lambda: _engines(port) == [])
    assert not answers("127.0.0.1", port, "/v1/models", key)


def test_out_of_memory_is_told_with_a_smaller_start(plan: Callable[..., str]) -> None:
    """It may take 900 MiB of addresses; the file, the cache and the logits of 8,192 tokens take more."""
    limit = 900 << 20
    with _serve(plan(8192), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))) as run:
        _, said = run.communicate(timeout=60)
    assert run.returncode == 1, said
    assert "out of memory" in said
    assert "the planner would change" in said
    assert "Traceback" not in said


def test_a_taken_port_is_told_at_once(serving: tuple[Any, int, str], plan: Callable[..., str]) -> None:
    _, port, _ = serving
    with _serve(plan(), "--port", str(port)) as second:
        _, said = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"port {port} of 127.0.0.1 is taken" in said


def test_a_server_gives_the_tokens_that_the_engine_gives_in_this_process() -> None:
    with memserve.generator(str(GGUF), backend="llamacpp", n_ctx=512) as here:
        wanted = [one.text for one in here.generate(PROMPTS, max_tokens=16)]
    with memserve.generator(str(GGUF), backend="llamacpp", server=True, n_ctx=512) as there:
        assert there.capabilities.backend == "llamacpp"
        assert [one.text for one in there.generate(PROMPTS, max_tokens=16)] == wanted
