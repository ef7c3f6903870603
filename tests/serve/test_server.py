"""A server is started, watched and stopped: real processes, real sockets."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memserve.errors import BackendMissing, EngineFailed, InvalidInput, TimedOut
from memserve.serve import process, start
from memserve.serve.health import answers, free_port

if TYPE_CHECKING:
    from collections.abc import Callable


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def _within(seconds: float, what: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_it_answers_on_loopback_with_a_key_of_its_own(vllm: list[str]) -> None:
    with start(vllm, timeout=20) as server:
        assert server.base_url.startswith("http://127.0.0.1:")
        assert answers("127.0.0.1", server.port, "/health", server.reveal_key())
        assert not answers("127.0.0.1", server.port, "/health", "another key")
        assert len(server.reveal_key()) >= 32
    assert not answers("127.0.0.1", server.port, "/health", server.reveal_key())


def test_the_key_is_in_no_argument_log_or_repr(vllm: list[str]) -> None:
    with start(vllm, timeout=20) as server:
        arguments = Path(f"/proc/{server.pid}/cmdline").read_text()
        for text in (arguments, server.log.read_text(), repr(server), str(vars(server.manner))):
            assert server.reveal_key() not in text


def test_a_named_port_is_taken(vllm: list[str]) -> None:
    port = free_port("127.0.0.1")
    with start(vllm, port=port, timeout=20) as server:
        assert server.port == port


def test_death_is_told_in_plain_words_without_the_key(vllm: list[str]) -> None:
    with pytest.raises(EngineFailed) as caught:
        start(vllm, env={"MOOD": "dies"}, key="secret-key-123", timeout=20)
    text = str(caught.value)
    assert "exit code 3" in text
    assert "out of memory" in text
    assert "smaller quantization" in text
    assert "secret-key-123" not in text


def test_silence_ends_in_a_time_out_with_the_last_line(vllm: list[str]) -> None:
    with pytest.raises(TimedOut, match="loading shard 1 of 9"):
        start(vllm, env={"MOOD": "hangs"}, timeout=1.5)


def test_progress_is_reported(vllm: list[str]) -> None:
    lines: list[str] = []
    with pytest.raises(TimedOut):
        start(vllm, env={"MOOD": "hangs"}, timeout=1.5, report=lambda p: lines.append(p.line))
    assert "loading shard 1 of 9" in lines


def test_who_does_not_listen_is_killed(vllm: list[str], tmp_path: Path) -> None:
    stubborn = process.Process(
        [*vllm, "--host", "127.0.0.1", "--port", str(free_port("127.0.0.1"))],
        {"MOOD": "stubborn", "VLLM_API_KEY": "k"}, tmp_path / "log", patience=0.3,
    )  # fmt: skip
    assert _within(10, lambda: b"listening" in (tmp_path / "log").read_bytes())
    stubborn.stop()
    stubborn.stop()
    assert not _alive(stubborn.pid)


def test_grandchildren_do_not_outlive_it(vllm: list[str], tmp_path: Path) -> None:
    note = tmp_path / "child"
    with start(vllm, env={"MOOD": "parent", "CHILD_FILE": str(note)}, timeout=20):
        child = int(note.read_text())
        assert _alive(child)
    assert _within(5, lambda: not _alive(child))


def test_a_missing_program_names_what_to_do() -> None:
    with pytest.raises(BackendMissing, match="vllm"):
        start(["/nowhere/vllm", "serve", "x"], timeout=2)


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no server is started by"):
        start(["rm", "-rf", "x"])
