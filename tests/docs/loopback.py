"""A server on loopback for the pages' HTTP calls: chat, streams, embeddings, reranking."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

USAGE = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}


def answer(path: str, asked: dict[str, Any]) -> Any:
    """What the server says to one call."""
    if path.endswith("/embed"):
        return [[1.0, 0.0] for _ in asked["inputs"]]
    if path.endswith("/embeddings"):
        texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        return {"data": [{"index": i, "embedding": [1.0, 0.0]} for i in range(len(texts))], "usage": USAGE}
    if path.endswith("/rerank"):
        texts = asked.get("texts") or asked["documents"]
        return [{"index": i, "score": 1.0 / (i + 1)} for i in range(len(texts))]
    choice = {"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}
    return {"id": "1", "model": asked.get("model", "here"), "choices": [choice], "usage": USAGE}


def pieces(asked: dict[str, Any]) -> list[str]:
    """The same as a stream's events."""
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": "Par"}}]},
        {"choices": [{"index": 0, "delta": {"content": "is"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": USAGE},
    ]
    return [*(json.dumps({"model": asked.get("model"), **chunk}) for chunk in chunks), "[DONE]"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(json.dumps({"data": [{"id": "here"}, {"id": "Qwen/Qwen3-32B"}]}), "application/json")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
        if asked.get("stream"):
            self._send("".join(f"data: {piece}\n\n" for piece in pieces(asked)), "text/event-stream")
        else:
            self._send(json.dumps(answer(self.path, asked)), "application/json")

    def _send(self, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is printed."""


@contextmanager
def served() -> Iterator[str]:
    """`127.0.0.1:PORT` of a server that lives as long as the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
