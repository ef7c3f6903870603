"""A stand-in for an engine's server: a real process on loopback that behaves as MOOD tells it."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SERVER = """#!{python}
import http.server, os, signal, socket, subprocess, sys, time
mood = os.environ.get("MOOD", "")
words = sys.argv[1:]
port = int(words[words.index("--port") + 1])
host = words[words.index("--host") + 1]
if mood == "dies":
    print("(EngineCore pid=1) ERROR torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")
    print("key was", os.environ["VLLM_API_KEY"])
    sys.exit(3)
if mood == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mood == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mood == "parent":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(os.environ["CHILD_FILE"], "w").write(str(child.pid))
if mood == "elsewhere" and os.getsid(0) == os.getpgrp() and not os.environ.get("MOVED"):
    subprocess.run(["setsid", sys.executable, *sys.argv], env={**os.environ, "MOVED": "1"})
if mood == "hangs":
    print("loading shard 1 of 9", flush=True)
    time.sleep(600)
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        right = self.headers.get("Authorization") == "Bearer " + os.environ["VLLM_API_KEY"]
        self.send_response(200 if right else 401); self.end_headers()
    def log_message(self, *args): pass
print("listening on", host, port, "arguments", " ".join(words), flush=True)
class Server(http.server.HTTPServer):
    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
Server((host, port), Answer).serve_forever()
"""


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words `vllm serve tiny`, where `vllm` is the stand-in."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(SERVER.replace("{python}", sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return ["vllm", "serve", "tiny"]
