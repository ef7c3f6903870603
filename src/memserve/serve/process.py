"""One child process in a group of its own, with its log in a file; ended as a whole, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING
from weakref import finalize

from memserve.errors import BackendMissing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TAIL_BYTES = 65536
PATIENCE = 10.0
"""Seconds between asking and insisting: an engine that holds a card needs some to let go."""


class Process:
    """Started at once; `stop` asks, then insists."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path,
                 patience: float = PATIENCE) -> None:  # fmt: skip
        self.log = log
        with log.open("ab") as out:
            try:
                self._child = subprocess.Popen(
                    list(command), env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=out,
                    stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
            except FileNotFoundError as error:
                install = (
                    "python -m memserve.serve PLAN.json makes an environment with the plan's install line"
                )
                raise BackendMissing(
                    command[0], needs=f"the program {command[0]}", install=install
                ) from error
        self._end = finalize(self, _end_group, self._child, patience)

    @property
    def pid(self) -> int:
        """Process id; its group has the same."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._child.poll()

    def tail(self) -> str:
        """The end of the log."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")

    def stop(self) -> None:
        """End the whole group; twice is once."""
        self._end()


def _end_group(child: subprocess.Popen[bytes], patience: float) -> None:
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        _signal(child.pid, sign)
        if _gone(child, patience):
            break
    _signal(child.pid, signal.SIGKILL)  # grandchildren that outlived their parent
    child.wait()


def _signal(group: int, sign: signal.Signals) -> None:
    try:
        os.killpg(group, sign)
    except (ProcessLookupError, PermissionError):
        return


def _gone(child: subprocess.Popen[bytes], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while child.poll() is None:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
