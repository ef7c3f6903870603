"""A small honest server: it streams as many tokens as asked, several in a chunk, and says how many."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPLATE = 20
"""Tokens of the chat template; every word is one more."""


class CountingServer(ThreadingHTTPServer):
    """Counts what is asked of it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.base_url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        self.bodies: list[dict[str, Any]] = []
        self.models: list[dict[str, Any]] = []
        self.lock, self.now, self.most = threading.Lock(), 0, 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CountingServer

    def do_GET(self) -> None:
        self.send(json.dumps({"object": "list", "data": self.server.models}).encode(), "application/json")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.bodies.append(asked)
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            events = [*(json.dumps(event) for event in answer(asked)), "[DONE]"]
            threading.Event().wait(0.02)  # so that those in flight are in flight together
        finally:
            with self.server.lock:
                self.server.now -= 1
        self.send("".join(f"data: {event}\n\n" for event in events).encode(), "text/event-stream")

    def send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Requests are not logged."""


def answer(asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    most = asked["max_tokens"]
    for begin in range(0, most, 5):
        delta = {"content": "word " * min(5, most - begin)}
        yield {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
    read = TEMPLATE + sum(len(message["content"].split()) for message in asked["messages"])
    yield {"choices": [], "usage": {"prompt_tokens": read, "completion_tokens": most}}


@pytest.fixture
def counting_server() -> Iterator[CountingServer]:
    with CountingServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
