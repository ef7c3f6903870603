"""docs/http.md's smallest HTTP backend, word for word: installed, judged by the suite, and asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "http.md"
FILE = re.compile(r"^# backends/(memserve_acme/\w+\.py)\n", re.MULTILINE)


class Acme(BaseHTTPRequestHandler):
    """The provider: answers as many words as it may, and wants its key."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["X-Acme-Key"] != "acme-key":
            self._send(401, {"error": "no such key"})
        else:
            said = json.dumps(body["input"]).split()
            words = [f"word{len(said)}-{place}" for place in range(min(body["limit"], 12))]
            self._send(200, {"output": " ".join(words), "cut": len(words) < 12})

    def _send(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Acme)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with the page's files and their entry point."""
    site = tmp_path_factory.mktemp("acme")
    text = PAGE.read_text(encoding="utf-8")
    code = text.partition("## The smallest")[2].partition("```python\n")[2].partition("```")[0]
    _, *parts = FILE.split(code)
    for name, content in zip(parts[::2], parts[1::2], strict=True):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(content, encoding="utf-8")
    info = site / "acme-1.0.dist-info"
    info.mkdir()
    entry = re.search(r'`(acme = )"([\w:]+)"`', text)
    assert entry
    (info / "entry_points.txt").write_text(f"[memserve.backends]\n{entry[1]}{entry[2]}\n")
    return site


def _run(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "ACME_API_KEY": "acme-key"}
    return subprocess.run(
        [sys.executable, *words], cwd=site, env=env, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip


@pytest.mark.slow
def test_it_passes_the_conformance_suite(site: Path, address: str) -> None:
    words = ("-m", "pytest", "-p", "no:cacheprovider", "-q", "--pyargs", "memserve.conformance", "--backend",
             "acme", "--model", "acme-1", "--options", f"base_url={address}")  # fmt: skip
    done = _run(site, *words, "--conformance-report", "report.json")
    assert done.returncode == 0, done.stdout[-4000:]
    rows = json.loads((site / "report.json").read_text())["results"]
    assert sum(row["outcome"] == "passed" for row in rows) > 20


def test_it_answers_and_refuses(site: Path, address: str) -> None:
    code = f"""
import memserve
with memserve.generator("acme-1", backend="acme", base_url={address!r}) as generator:
    answer = generator.generate("one two three", max_tokens=3)
    print(answer.text, answer.finish_reason)
    try:
        generator.generate("hi", temperature=0.5)
    except memserve.errors.Unsupported as error:
        print(error.setting)
"""
    done = _run(site, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith(" length")
    assert done.stdout.splitlines()[1] == "temperature"
