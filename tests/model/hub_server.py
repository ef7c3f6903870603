"""A hub on loopback: model pages that are there, missing, gated, slow or cut short."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256,
}  # fmt: skip
BODY = json.dumps(CONFIG).encode()
FILE = re.compile(r"^/([^/]+)/([^/]+)/resolve/[^/]+/(.+)$")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        pass

    def refuse(self, status, code):
        raw = json.dumps({"error": code}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        found = FILE.match(self.path.split("?")[0])
        kind = found[2] if found else ""
        if kind == "gated":
            self.refuse(403, "GatedRepo")
        elif kind in ("", "missing"):
            self.refuse(404, "RepoNotFound")
        elif kind == "empty" or found[3] != "config.json":
            self.refuse(404, "EntryNotFound")
        else:
            if kind == "slow":
                time.sleep(20)
            self.answer(kind)

    def answer(self, kind):
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(BODY).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # a client that gave up
                self.wfile.write(BODY[:40] if kind == "cut" else BODY)
            self.close_connection = kind == "cut"


class Hub:
    """Serves until it is closed."""

    def __init__(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
