"""A generator that misbehaves on request, and small helpers to look at what a run left behind."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from memserve.protocol import Capabilities, Completion, Usage


class Fake:
    """Answers with the prompt in capitals. `script` maps a prompt to what happens, attempt by attempt."""

    capabilities = Capabilities(backend="fake", model="fake-1")

    def __init__(self, script=None, seconds=0.0):
        self.script = {prompt: list(steps) for prompt, steps in (script or {}).items()}
        self.seconds = seconds
        self.asked = []
        self.settings = []
        self.now = self.most = 0

    @property
    def counts(self):
        return Counter(str(prompt) for prompt in self.asked)

    async def agenerate(self, prompt, **settings):
        self.asked.append(prompt)
        self.settings.append(settings)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.seconds)
            return self.answer(prompt)
        finally:
            self.now -= 1

    def answer(self, prompt):
        steps = self.script.get(str(prompt), self.script.get("*", []))
        step = steps.pop(0) if steps else None
        if isinstance(step, BaseException):
            raise step
        return step or Completion(text=str(prompt).upper(), finish_reason="stop", usage=Usage(10, 5))


class Blocking:
    """Only the synchronous half of the protocol."""

    capabilities = Capabilities(backend="blocking", model="fake-1")

    def __init__(self):
        self.lock = threading.Lock()
        self.now = self.most = 0

    def generate(self, prompt, **settings):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        threading.Event().wait(0.02)
        with self.lock:
            self.now -= 1
        return Completion(text=prompt.upper(), finish_reason="stop")


class Lists:
    """A local engine, which wants long lists."""

    capabilities = Capabilities(backend="lists", model="fake-1", batches=True)

    def __init__(self, bad=()):
        self.bad = dict(bad)
        self.calls = []

    def generate(self, prompts, *, on_error="raise", **settings):
        self.calls.append((list(prompts), settings))
        return [self.one(prompt) for prompt in prompts]

    def one(self, prompt):
        error = self.bad.get(prompt)
        if error is not None and not hasattr(error, "retryable"):
            raise error
        return Completion(text=None if error else prompt.upper(), finish_reason="stop", error=error)


class Server(ThreadingHTTPServer):
    """An OpenAI-style server that remembers which prompts were posted, in order."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, seconds=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seconds = seconds
        self.status = 200
        self.a_second = None
        self.starts = deque()
        self.posts = []
        self.answered = []
        self.refused = 0
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def admits(self):
        """Whether one more fits into the sliding second."""
        now = time.monotonic()
        while self.starts and now - self.starts[0] > 1:
            self.starts.popleft()
        if self.a_second is not None and len(self.starts) >= self.a_second:
            return False
        self.starts.append(now)
        return True

    def handle_error(self, request, client_address):
        """A killed client is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = sent["messages"][-1]["content"]
        self.server.posts.append(prompt)
        threading.Event().wait(self.server.seconds)
        status = self.server.status if self.server.admits() else 429
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": prompt.upper()},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        body = {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
        if status != 200:
            self.server.refused += 1
            body = {"error": {"message": "no", "type": "no", "code": None}}
        else:
            self.server.answered.append(prompt)
        data = json.dumps(body).encode()
        self.send_response(status)
        if status == 429:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        """Quiet."""


@pytest.fixture
def fake():
    return Fake


@pytest.fixture
def blocking():
    return Blocking


@pytest.fixture
def lists():
    return Lists


@pytest.fixture
def serve():
    servers = []

    def start(**options):
        servers.append(Server(**options))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "answers.jsonl"


@pytest.fixture
def rows():
    def read(path):
        path = Path(path)
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    return read


@pytest.fixture
def failed(out, rows):
    return lambda: rows(out.with_name("answers.failed.jsonl"))
