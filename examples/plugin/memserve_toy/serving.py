"""toy-serve MODEL --host H --port P: the toy behind OpenAI's routes, in place of an engine's own server."""

from __future__ import annotations

import argparse
import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from memserve.protocol import Request
from memserve_toy import model
from memserve_toy.engine import ToyEngine

KEY = "TOY_API_KEY"


class Answer(BaseHTTPRequestHandler):
    """`/health`, `/v1/models` and `/v1/chat/completions`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Whether it lives, and what it serves."""
        named = {"object": "list", "data": [{"id": self.server.served, "object": "model"}]}  # type: ignore[attr-defined]
        self._send(named if self.path == "/v1/models" else {"status": "ok"})

    def do_POST(self) -> None:
        """One chat."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = asked.get("messages") or asked.get("prompt")
        limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or 64
        request = Request(prompt=prompt, max_tokens=limit, temperature=asked.get("temperature", 0.0))
        (said,) = ToyEngine().generate([request])
        if said.error is not None:
            self._send({"error": {"message": str(said.error)}}, 400)
            return
        usage = said.usage
        self._send({
            "id": "toy", "object": "chat.completion", "model": asked["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": said.text},
                         "finish_reason": said.finish_reason}],
            "usage": {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
        })  # fmt: skip

    def _send(self, value: Any, status: int = 200) -> None:
        if self.headers.get("Authorization") != f"Bearer {os.environ.get(KEY, '')}":
            value, status = {"error": {"message": "a key is needed"}}, 401
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Requests are not logged."""


def main(words: list[str] | None = None) -> int:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(prog="toy-serve", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7007)
    for name in ("shards", "stages", "copies", "context", "dtype", "share", "nodes", "node", "head"):
        parser.add_argument(f"--{name}", help="taken, and of no effect: the toy has no cards")
    asked = parser.parse_args(words)
    if not (Path(asked.model) / "config.json").exists():
        print(f"toy: no such model: {asked.model}", file=sys.stderr)
        return 1
    print("toy: card of 8.00 GiB\ntoy: runtime 0.30 GiB", flush=True)
    print(f"toy: cache holds {asked.context or model.CONTEXT} tokens", flush=True)
    server = ThreadingHTTPServer((asked.host, asked.port), Answer)
    server.served = asked.model  # type: ignore[attr-defined]
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
