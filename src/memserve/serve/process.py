"""One engine with its log in a file, watched by a guard that ends it as a whole, whatever happens to us."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from weakref import finalize

from memserve.errors import BackendMissing

_TAIL_BYTES = 65536
PATIENCE = 10.0
"""Seconds between asking and insisting: an engine that holds a card needs some to let go."""
_SPARE_SECONDS = 10.0


class Process:
    """Started at once; `stop` asks, then insists. It ends with this process, even if that is killed."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path,
                 patience: float = PATIENCE) -> None:  # fmt: skip
        self.log = log
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), str(patience)]
        with log.open("ab") as out:
            self._guard = subprocess.Popen(
                [*guard, *command], env=dict(env), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=out, start_new_session=True,
            )  # fmt: skip
        self._end = finalize(self, _release, self._guard, 3 * patience + _SPARE_SECONDS)
        self.pid = self._first_word(command[0])

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative where a signal ended it."""
        code = self._guard.poll()
        return code if code is None or code <= 128 else 128 - code

    def tail(self) -> str:
        """The end of the log."""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")

    def stop(self) -> None:
        """End the whole group; twice is once."""
        self._end()

    def _first_word(self, program: str) -> int:
        """The engine's process id, which is its group's too; or why there is none."""
        assert self._guard.stdout is not None
        with self._guard.stdout as said:
            word = said.readline().decode("utf-8", "replace").strip()
        if word.isdigit():
            return int(word)
        self.stop()
        install = "python -m memserve.serve PLAN.json makes an environment with the plan's install line"
        raise BackendMissing(program, needs=f"the program {program} ({word})", install=install)


def _release(guard: subprocess.Popen[bytes], seconds: float) -> None:
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(seconds)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
