"""A scripted server that speaks the OpenAI dialect on loopback, so that the examples run without a model.

It answers a question with the line of its prompt that shares most words with it, judges by looking for the
correct answer in the response, and embeds texts as hashed bags of words. Its scores mean nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from zlib import crc32

from examples.common.retrieval import words

DIMENSIONS = 256
FRAME = ("Below is", "Below are", "From the", "Read one")
"""How our own prompts begin their instructions."""


@contextmanager
def served() -> Iterator[str]:
    """The base URL of a demo server that lives as long as the block."""
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def reply(prompt: str) -> str:
    """What the demo says to a prompt: the line before the question that shares most words with it."""
    before, _, asked = prompt.rpartition("Question:")
    if "Model response:" in prompt:
        return _verdict(_after("Correct answer:", prompt), _after("Model response:", prompt))
    wanted = set(words(asked.split("Answer")[0].split("Short answer")[0]))
    lines = [line for line in before.splitlines() if line.strip() and not line.startswith(FRAME)]
    best = max(lines, key=lambda line: len(wanted & set(words(line))), default="")
    return best.partition(": ")[2] or best


def _verdict(answer: str, response: str) -> str:
    found = set(words(answer)) <= set(words(response))
    return "yes" if found and answer else "no"


def _after(mark: str, prompt: str) -> str:
    return prompt.rpartition(mark)[2].split("\n", 1)[0].strip()


def vector(text: str) -> list[float]:
    """A text as a hashed bag of words."""
    numbers = [0.0] * DIMENSIONS
    for word in words(text):
        numbers[crc32(word.encode()) % DIMENSIONS] += 1.0
    return numbers


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # five, the default, makes the sixth connection wait a second


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = _embeddings(sent) if self.path.endswith("/embeddings") else _completion(sent)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


def _completion(sent: dict[str, Any]) -> dict[str, Any]:
    prompt = sent["messages"][-1]["content"]
    text = reply(prompt)
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    counts = len(words(prompt)), len(words(text))
    usage = {"prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}
    return {
        "id": "demo",
        "object": "chat.completion",
        "model": sent["model"],
        "choices": [choice],
        "usage": usage,
    }


def _embeddings(sent: dict[str, Any]) -> dict[str, Any]:
    texts = sent["input"] if isinstance(sent["input"], list) else [sent["input"]]
    rows = [{"object": "embedding", "index": n, "embedding": vector(text)} for n, text in enumerate(texts)]
    tokens = sum(len(words(text)) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": rows, "model": sent["model"], "usage": usage}
