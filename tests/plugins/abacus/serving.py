"""The made-up engine's server: it counts what it is asked."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Answer(BaseHTTPRequestHandler):
    """One word for every question."""

    def do_GET(self) -> None:
        self.send({"beads": 9})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": "nine"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        self.send({"id": "1", "model": "abacus", "choices": [choice], "usage": usage})

    def send(self, value: Any) -> None:
        allowed = self.headers.get("Authorization") == f"Bearer {os.environ['ABACUS_KEY']}"
        body = json.dumps(value if allowed else {"error": {"message": "no"}}).encode()
        self.send_response(200 if allowed else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        pass


print("abacus sees 47.85G\nabacus frame 0.75G", flush=True)
host, port = (sys.argv[sys.argv.index(flag) + 1] for flag in ("--listen", "--at"))
HTTPServer((host, int(port)), Answer).serve_forever()
