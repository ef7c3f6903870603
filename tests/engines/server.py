"""A `vllm serve` for the HTTP tests: python tests/engines/server.py start MODEL | stop

`start` prints base_url=... and leaves the server running; `stop` ends it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from make import home

from memserve.serve.ports import free_port
from memserve.serve.server import answers

STATE = home() / "http-server.pid"
SECONDS = 300


def start(model: str) -> None:
    """Wait until it answers; its log stands beside the state file."""
    port = free_port("127.0.0.1")
    words = ["-m", "vllm.entrypoints.cli.main", "serve", model, "--dtype", "float32", "--enforce-eager"]
    words += ["--port", str(port)]
    with STATE.with_suffix(".log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    STATE.write_text(str(server.pid))
    end = time.monotonic() + SECONDS
    while not answers("127.0.0.1", port, "/health", None):
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit(STATE.with_suffix(".log").read_text()[-3000:])
        time.sleep(0.5)
    print(f"base_url=http://127.0.0.1:{port}/v1")


def stop() -> None:
    """End the server's whole group."""
    if STATE.exists():
        with suppress(ProcessLookupError):
            os.killpg(int(STATE.read_text()), signal.SIGTERM)
        STATE.unlink()


if __name__ == "__main__":
    Path(STATE).parent.mkdir(parents=True, exist_ok=True)
    if sys.argv[1:2] == ["start"] and len(sys.argv) == 3:
        start(sys.argv[2])
    elif sys.argv[1:] == ["stop"]:
        stop()
    else:
        raise SystemExit(__doc__)
