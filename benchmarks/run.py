"""The runner's figures: kills, memory of a million queued requests, replay of cached answers.

    python benchmarks/run.py [--kills 20] [--queued 1000000] [--replayed 100000]

Each figure is printed with what it must reach; the exit code is 1 if one does not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve.protocol import Capabilities, Completion, Usage
from memserve.run import Summary, run

if TYPE_CHECKING:
    from collections.abc import Iterator

ITEMS_A_KILL = 200
REPEATS = 3
"""Rates are the best of so many. Other work on the machine lowers them, those per CPU second less."""


class Instant:
    """Answers at once, and remembers nothing."""

    capabilities = Capabilities(backend="instant", model="instant-1")

    async def agenerate(self, prompt: str, **settings: Any) -> Completion:
        return Completion(text=prompt.upper(), finish_reason="stop", usage=Usage(10, 5))


class Server(ThreadingHTTPServer):
    """An OpenAI-style server on loopback that remembers what was posted, in order."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posts: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A killed client is no news."""


class Handler(BaseHTTPRequestHandler):
    """One chat completion: the prompt in capitals, after five milliseconds."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = sent["messages"][-1]["content"]
        self.server.posts.append(prompt)
        time.sleep(0.005)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": prompt.upper()},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        body = json.dumps({"id": "x", "model": "m", "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Quiet."""


def killed(folder: Path, kills: int) -> tuple[int, int]:
    """Kill -9 at random moments, then run to the end: answers lost, answered requests posted again."""
    count, chance, server = kills * ITEMS_A_KILL, random.Random(), Server()
    path, output = folder / "requests.jsonl", folder / "killed.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"q{n}", "prompt": f"prompt {n}"}) + "\n" for n in range(count))
    )
    repeated = 0
    for kill in range(kills + 1):
        done, posted = {row["prompt"] for row in _answered(output)}, len(server.posts)
        process = _command(path, output, server)
        if kill < kills:
            _wait_for(output, len(done) + chance.randint(1, ITEMS_A_KILL))
            time.sleep(chance.random() / 50)
            process.kill()
        process.wait()
        repeated += sum(prompt in done for prompt in server.posts[posted:])
    names = [row["id"] for row in _answered(output)]
    return count - len(set(names)), repeated + len(names) - len(set(names))


def _command(path: Path, output: Path, server: Server) -> subprocess.Popen[bytes]:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    who = ["--model", "m", "--backend", "openai", "--base-url", url, "--concurrency", "8", "--quiet"]
    command = [sys.executable, "-m", "memserve.run", str(path), "-o", str(output), *who]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def _answered(output: Path) -> list[dict[str, str]]:
    lines = output.read_bytes().splitlines(keepends=True) if output.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [{"id": row["id"], "prompt": row["text"].lower()} for row in rows]


def _wait_for(output: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(_answered(output)) < count and time.monotonic() < deadline:
        time.sleep(0.01)


def queued(folder: Path, count: int) -> tuple[float, float]:
    """Growth in MiB of the resident set over so many queued requests, and requests per second."""
    peak = [_resident()]

    def requests() -> Any:
        for n in range(count):
            if n % 1000 == 0:
                peak.append(_resident())
            yield {"id": n, "prompt": f"prompt {n}"}

    _run(({"id": n, "prompt": f"prompt {n}"} for n in range(1000)), folder / "warm.jsonl")
    before, began = _resident(), time.perf_counter()
    summary = _run(requests(), folder / "queued.jsonl")
    assert summary.done == count
    return (max(peak) - before) / 2**20, count / (time.perf_counter() - began)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def replayed(folder: Path, count: int) -> dict[str, float]:
    """Cached answers written to a new output, and answered requests skipped on resuming, in a second."""
    asked = [{"id": n, "prompt": f"prompt {n}"} for n in range(count)]
    _run(asked, folder / "first.jsonl", cache=folder / "cache.sqlite")
    rates: dict[str, float] = {}
    for turn in range(REPEATS):
        output = folder / f"again-{turn}.jsonl"
        with _timed(rates, "cached answers replayed", count):
            assert _run(asked, output, cache=folder / "cache.sqlite").cached == count
        with _timed(rates, "answered requests skipped on resuming", count):
            assert _run(asked, output).resumed == count
    return rates


@contextmanager
def _timed(rates: dict[str, float], what: str, count: int) -> Iterator[None]:
    wall, busy = time.perf_counter(), time.process_time()
    yield
    found = {
        f"{what} per second": time.perf_counter() - wall,
        f"{what} per CPU second": time.process_time() - busy,
    }
    for name, seconds in found.items():
        rates[name] = max(rates.get(name, 0.0), count / seconds)


def _run(requests: Any, output: Path, **options: Any) -> Summary:
    return run(requests, output, generator=Instant(), progress=False, **options)  # type: ignore[arg-type]


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--kills", type=int, default=20)
    words.add_argument("--queued", type=int, default=1_000_000)
    words.add_argument("--replayed", type=int, default=100_000)
    chosen = words.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as name:
        growth, rate = queued(Path(name), chosen.queued)
        figures.append((f"memory growth over {chosen.queued} queued requests, MiB", growth, "<", 60))
        figures.append(("requests asked and written per second, instant generator", rate, ">", 0))
        for what, rate in replayed(Path(name), chosen.replayed).items():
            figures.append(
                (what, rate, ">", 20_000 if what == "cached answers replayed per CPU second" else 0)
            )
        lost, repeated = killed(Path(name), chosen.kills)
        figures.append((f"answers lost after {chosen.kills} kills", lost, "<", 1))
        figures.append((f"answers repeated after {chosen.kills} kills", repeated, "<", 1))
    for what, figure, sign, bound in figures:
        print(f"{what:60} {figure:12.1f}   must be {sign} {bound}")
    return int(any(figure >= bound if sign == "<" else figure <= bound for _, figure, sign, bound in figures))


if __name__ == "__main__":
    sys.exit(main())
