"""A server is started, watched and stopped: real processes, real sockets."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import HANG_SECONDS, until

from memserve.errors import BackendMissing, EngineFailed, InvalidInput, TimedOut
from memserve.serve import start
from memserve.serve.ports import free_port, held, is_free, listener
from memserve.serve.server import Process, answers, private


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:  # read while it goes: ProcessLookupError
        return False


def test_it_answers_on_loopback_with_a_key_of_its_own(vllm: list[str]) -> None:
    with start(vllm, timeout=120) as server:
        assert server.base_url.startswith("http://127.0.0.1:")
        assert answers("127.0.0.1", server.port, "/health", server.reveal_key())
        assert not answers("127.0.0.1", server.port, "/health", "another key")
        assert len(server.reveal_key()) >= 32
    assert not answers("127.0.0.1", server.port, "/health", server.reveal_key())


def test_the_key_is_in_no_argument_log_or_repr(vllm: list[str]) -> None:
    with start(vllm, timeout=120) as server:
        arguments = Path(f"/proc/{server.pid}/cmdline").read_text()
        for text in (arguments, server.log.read_text(), repr(server), str(vars(server.program))):
            assert server.reveal_key() not in text


def test_a_named_port_is_taken(vllm: list[str]) -> None:
    port = free_port("127.0.0.1")
    with start(vllm, port=port, timeout=120) as server:
        assert server.port == port


def test_death_is_told_in_plain_words_without_the_key(vllm: list[str]) -> None:
    with pytest.raises(EngineFailed) as caught:
        start(vllm, env={"MOOD": "dies"}, key="secret-key-123", timeout=120)
    text = str(caught.value)
    assert "exit code 3" in text
    assert "out of memory" in text
    assert "smaller quantization" in text
    assert "secret-key-123" not in text


def test_an_engine_that_the_system_killed_is_said_to_be(vllm: list[str]) -> None:
    with pytest.raises(EngineFailed, match=r"died of signal 9: the system killed it.*main memory"):
        start(vllm, env={"MOOD": "killed"}, timeout=120)


def test_a_taken_port_is_refused_before_anything_starts(vllm: list[str], tmp_path: Path) -> None:
    """Else another server's answer would pass for ours."""
    with start(vllm, timeout=120) as other:
        with pytest.raises(InvalidInput, match=f"port {other.port} of 127.0.0.1 is taken"):
            start(vllm, port=other.port, log=tmp_path / "log", timeout=120)
        assert not (tmp_path / "log").exists()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_is_a_port(vllm: list[str], port: int) -> None:
    with pytest.raises(InvalidInput, match=r"1\.\.65535"):
        start(vllm, port=port)


def test_ipv6_loopback(vllm: list[str]) -> None:
    if not is_free("::1", free_port("127.0.0.1")):
        pytest.skip("this machine has no IPv6")
    with start(vllm, host="::1", timeout=120) as server:
        assert server.base_url == f"http://[::1]:{server.port}/v1"


def test_a_key_that_has_no_variable_goes_into_a_file_of_its_owner(tmp_path: Path) -> None:
    """Arguments are visible to every user; SGLang reads flags from a file too."""
    stand_in = tmp_path / "python"
    stand_in.write_text("#!/bin/sh\necho $@\nexit 1\n")
    stand_in.chmod(0o755)
    command = ["python", "-m", "sglang.launch_server", "--model-path", "tiny"]
    with pytest.raises(EngineFailed):
        start(command, python=str(stand_in), key="secret-key-123", log=tmp_path / "log", timeout=120)
    said = (tmp_path / "log").read_text()
    assert "secret-key-123" not in said
    path = Path(said.split("--config ")[1].strip())
    assert path.read_text() == "api-key: secret-key-123\n"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_a_server_that_asks_for_no_key_stays_on_loopback(host: str) -> None:
    with pytest.raises(InvalidInput, match="asks for no key"):
        start(["transformers", "serve", "tiny"], host=host)


def test_silence_ends_in_a_time_out_with_the_last_line(vllm: list[str]) -> None:
    with pytest.raises(TimedOut, match="loading shard 1 of 9"):
        start(vllm, env={"MOOD": "hangs"}, timeout=5)


def test_progress_is_reported(vllm: list[str]) -> None:
    lines: list[str] = []
    with pytest.raises(TimedOut):
        start(vllm, env={"MOOD": "hangs"}, timeout=5, report=lambda p: lines.append(p.line))
    assert "loading shard 1 of 9" in lines


def test_who_does_not_listen_is_killed(vllm: list[str], tmp_path: Path) -> None:
    stubborn = Process(
        [*vllm, "--host", "127.0.0.1", "--port", str(free_port("127.0.0.1"))],
        {**os.environ, "MOOD": "stubborn", "VLLM_API_KEY": "k"}, tmp_path / "log", patience=0.3,
    )  # fmt: skip
    until(lambda: b"listening" in (tmp_path / "log").read_bytes())
    stubborn.stop()
    stubborn.stop()
    assert not _alive(stubborn.pid)


def test_grandchildren_do_not_outlive_it(vllm: list[str], tmp_path: Path) -> None:
    note = tmp_path / "child"
    with start(vllm, env={"MOOD": "parent", "CHILD_FILE": str(note)}, timeout=120):
        child = int(note.read_text())
        assert _alive(child)
    until(lambda: not _alive(child))


def test_what_a_dead_engine_leaves_behind_is_ended(vllm: list[str], tmp_path: Path) -> None:
    note = tmp_path / "child"
    server = start(vllm, env={"MOOD": "parent", "CHILD_FILE": str(note)}, timeout=120)
    child = int(note.read_text())
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not _alive(child))
    until(lambda: not server.running)
    with pytest.raises(EngineFailed, match="signal 9"):
        server.check()
    server.stop()


STARTS = """
import signal, sys, time
from memserve.serve import start
for sign in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(sign, signal.SIG_DFL)  # a nohup above would have them ignored
server = start(sys.argv[1:], inherit=("MOOD", "CHILD_FILE"), timeout=120)
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_nothing_outlives_whoever_started_it(vllm: list[str], tmp_path: Path, sign: signal.Signals) -> None:
    """A script that is killed outright runs no exit handlers."""
    note = tmp_path / "child"
    world = {**os.environ, "MOOD": "parent", "CHILD_FILE": str(note)}
    with subprocess.Popen([sys.executable, "-c", STARTS, *vllm], stdout=subprocess.PIPE, env=world) as script:
        assert script.stdout is not None
        engine = int(script.stdout.readline())
        child = int(note.read_text())
        assert _alive(engine)
        script.send_signal(sign)
        try:
            script.wait(HANG_SECONDS)
        finally:
            script.kill()
        until(lambda: not _alive(engine) and not _alive(child))


def test_a_missing_program_names_what_to_do() -> None:
    with pytest.raises(BackendMissing, match="vllm"):
        start(["/nowhere/vllm", "serve", "x"], timeout=2)


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no server is started by"):
        start(["rm", "-rf", "x"])


linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells who listens, and keeps a port for somebody else"
)


@linux
def test_whoever_else_holds_the_port_is_not_told_the_key(vllm: list[str], monkeypatch) -> None:
    """It would come with the first question whether the server is ready."""
    with socket.create_server(("127.0.0.1", 0)) as thief:
        thief.settimeout(0.2)
        monkeypatch.setattr("memserve.serve.server.free_port", lambda host: thief.getsockname()[1])
        with pytest.raises(EngineFailed, match="held by another process"):
            start(vllm, env={"MOOD": "hangs"}, timeout=120)
        with pytest.raises(TimeoutError):
            thief.accept()


@pytest.mark.slow
@linux
def test_who_listens_is_known_while_files_come_and_go(tmp_path: Path) -> None:
    """An engine opens and closes files while it loads; that makes nobody of it."""
    (tmp_path / "f").touch()
    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            with (tmp_path / "f").open():
                pass

    thread = threading.Thread(target=busy)
    with socket.create_server(("127.0.0.1", 0)) as here:
        port = here.getsockname()[1]
        thread.start()
        try:
            found = {listener(os.getsid(0), "127.0.0.1", port) for _ in range(60)}
        finally:
            over.set()
            thread.join()
        assert found == {"ours"}
        assert listener(-1, "127.0.0.1", port) == "another"
    assert listener(os.getsid(0), "127.0.0.1", port) == "nobody"


@linux
def test_an_engine_that_listens_from_another_session_is_ours_where_it_knows_the_key(vllm: list[str]) -> None:
    with start(vllm, env={"MOOD": "elsewhere"}, timeout=120) as server:
        assert answers("127.0.0.1", server.port, "/health", server.reveal_key())
        assert listener(server.pid, "127.0.0.1", server.port) == "another"
        assert listener(server.pid, "127.0.0.1", server.port, [server.reveal_key()]) == "ours"


@linux
def test_a_port_is_kept_for_the_engine_until_it_listens() -> None:
    port = free_port("127.0.0.1")
    with held("127.0.0.1", port), socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)) as engine:  # as servers do: SO_REUSEADDR
            assert engine.getsockname()[1] == port


def test_the_engine_ends_when_its_guard_is_killed(vllm: list[str], tmp_path: Path) -> None:
    child = tmp_path / "child"
    with start(vllm, env={"MOOD": "parent", "CHILD_FILE": str(child)}, timeout=120) as server:
        os.kill(server._process._guard.pid, signal.SIGKILL)
        until(lambda: not _alive(server.pid) and not _alive(int(child.read_text())))
        until(lambda: not server.running)
        with pytest.raises(EngineFailed, match="watches over vllm was killed"):
            server.check()


def test_a_key_file_with_two_names_is_not_written_over(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("word\n")
    second.hardlink_to(first)
    with pytest.raises(InvalidInput, match="something else"):
        private(second, "key\n")
    assert first.read_text() == "word\n"
