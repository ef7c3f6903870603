"""Stands between memserve and an engine: `python guard.py PATIENCE COMMAND ...`.

It starts the engine in a session of its own and says its process id. When its standard input closes, because
memserve asked or because memserve is gone (killed outright, too), it ends the engine's whole group, politely
first. Whatever the engine leaves behind when it dies by itself is ended as well, and so is the engine when
this process is killed: a second one stands by. Needs nothing of memserve.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

MISSING = 127
"""Exit code where the command cannot be started, as in a shell."""
_LOOK_SECONDS = 1.0
_told = threading.Event()
"""Somebody asked this process to end: so it ends the engine."""


def signalled(group: int, sign: signal.Signals) -> None:
    """Send to the whole group, if there still is one."""
    try:
        os.killpg(group, sign)
    except (ProcessLookupError, PermissionError):
        return


def _released(starter: int) -> bool:
    """Whether the input closed; asked by another way too, since a fork of the starter may hold it open."""
    readable, _, _ = select.select([0], [], [], _LOOK_SECONDS)
    return bool(readable) or _told.is_set() or os.getppid() != starter


def _end_when_released(engine: int, starter: int, patience: float) -> None:
    while not _released(starter):
        pass
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        signalled(engine, sign)
        time.sleep(patience)


def _wait(engine: subprocess.Popen[bytes]) -> int:
    """Its exit code. The group is ended before the engine is reaped, so that its number is still its own."""
    if not hasattr(os, "waitid"):
        engine.wait()
    else:
        os.waitid(os.P_PID, engine.pid, os.WEXITED | os.WNOWAIT)
    signalled(engine.pid, signal.SIGKILL)
    return engine.wait()


def _stand_by(engine: int) -> int:
    """A process that ends the engine's group when this one dies; a word to what is returned calls it off."""
    here, there = os.pipe()
    if os.fork():
        os.close(here)
        return there
    os.setsid()
    os.close(there)
    for descriptor in range(3):  # whoever waits for the end of our output must not wait for this one
        with suppress(OSError):
            os.close(descriptor)
    if not os.read(here, 1):
        signalled(engine, signal.SIGKILL)
    os._exit(0)


def main(words: list[str]) -> int:
    """The engine's exit code, 128 and more where a signal ended it."""
    starter = os.getppid()
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, lambda *_: _told.set())
    try:
        engine = subprocess.Popen(
            words[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr, start_new_session=True
        )
    except OSError as error:
        print(error.strerror, flush=True)
        return MISSING
    spare = _stand_by(engine.pid) if hasattr(os, "fork") else None
    print(engine.pid, flush=True)
    ending = (engine.pid, starter, float(words[0]))
    threading.Thread(target=_end_when_released, args=ending, daemon=True).start()
    code = _wait(engine)
    if spare is not None:
        with suppress(OSError):
            os.write(spare, b".")
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
