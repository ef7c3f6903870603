"""SGLang lives in a process of its own, which ends when it must and takes nobody along. A stand-in counts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import HANG_SECONDS, until

from memserve.errors import EngineFailed, ModelUnreadable, Unsupported
from memserve_sglang.host import Host


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_it_answers_from_another_process_and_ends_with_close(sglang: Path) -> None:
    host = Host(str(sglang), {"tp_size": "1", "max_model_len": 64})
    (told,) = host.call("generate", input_ids=[[1]])
    assert told["pid"] != os.getpid()
    assert host.facts["context"] == 64
    host.close()
    host.close()
    assert not _alive(told["pid"])
    with pytest.raises(EngineFailed, match="has ended"):
        host.call("generate", input_ids=[[1]])


def test_a_stream_left_early_leaves_the_host_usable(sglang: Path) -> None:
    host = Host(str(sglang), {})
    pieces = host.stream(input_ids=[1])
    assert next(pieces) == {"text": "a"}
    pieces.close()  # type: ignore[attr-defined]
    assert host.call("generate", input_ids=[[2]])[0]["input_ids"] == [[2]]
    host.close()


def test_its_death_is_an_error_here_and_not_our_own(sglang: Path) -> None:
    host = Host(str(sglang), {})
    with pytest.raises(EngineFailed, match="died while it worked"):
        host.call("generate", die=True)
    host.close()


def test_one_that_the_system_killed_is_said_to_be(sglang: Path) -> None:
    host = Host(str(sglang), {})
    (told,) = host.call("generate", input_ids=[[1]])
    os.kill(told["pid"], signal.SIGKILL)
    with pytest.raises(EngineFailed, match=r"killed by the system.*main memory"):
        host.call("generate", input_ids=[[1]])
    host.close()


def test_a_start_that_fails_says_why_in_one_line(sglang: Path) -> None:
    broken = Path(shutil.copytree(sglang, sglang.parent / "broken"))
    with pytest.raises(EngineFailed, match="Not enough memory") as caught:
        Host(str(broken), {})
    assert "\n" not in str(caught.value)


def test_what_cannot_work_is_refused_by_the_host(sglang: Path, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="did you mean tp_size"):
        Host(str(sglang), {"tp_sizes": 2})
    with pytest.raises(ModelUnreadable, match=r"no config\.json"):
        Host(str(tmp_path), {})


def test_a_host_at_work_ends_with_its_caller(sglang: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed outright while the engine still loads: nothing may stay on the card."""
    slow, note = Path(shutil.copytree(sglang, sglang.parent / "slow")), sglang.parent / "note"
    monkeypatch.setenv("NOTE", str(note))
    code = f"from memserve_sglang.host import Host; Host({str(slow)!r}, {{}})"
    caller = subprocess.Popen([sys.executable, "-c", code])
    until(lambda: note.exists() and bool(note.read_text()))
    host = int(note.read_text())
    assert _alive(host)
    caller.send_signal(signal.SIGKILL)
    caller.wait(HANG_SECONDS)
    until(lambda: not _alive(host))
    until(lambda: not _of_group(host))


def _of_group(group: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[2]) == group and words[0] != "Z":
            found.append(path.parent.name)
    return found
