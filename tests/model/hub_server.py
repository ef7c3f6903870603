"""A hub on loopback: model pages that are there, missing, gated, slow or cut short."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

COMMIT = "a" * 40
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256,
}  # fmt: skip
BODY = json.dumps(CONFIG).encode()
FRESH = json.dumps({**CONFIG, "model_type": "brand_new"}).encode()
"""A family that has no recipe: counted from the headers of its weights."""
TABLE = {
    "model.embed_tokens.weight": (256, 64), "model.norm.weight": (64,), "lm_head.weight": (256, 64),
    **{f"model.layers.{n}.self_attn.{side}_proj.weight": (64, 64) for n in (0, 1) for side in "qkvo"},
}  # fmt: skip
WEIGHTS = 1 << 30
"""Bytes that the file claims to have; nobody may ask for more than its first ones."""
FILE = re.compile(r"^/([^/]+)/([^/]+)/resolve/[^/]+/(.+)$")


def header():
    """The beginning of a safetensors file."""
    about = {
        name: {"dtype": "BF16", "shape": list(shape), "data_offsets": [0, 2]} for name, shape in TABLE.items()
    }
    raw = json.dumps(about).encode()
    return struct.pack("<Q", len(raw)) + raw


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
        if self.path.startswith("/api/models?"):
            self.listed()
        elif kind == "gated":
            self.refuse(403, "GatedRepo")
        elif kind in ("", "missing"):
            self.refuse(404, "RepoNotFound")
        elif kind == "fresh" and found[3] == "model.safetensors":
            self.beginning()
        elif kind == "empty" or found[3] != "config.json":
            self.refuse(404, "EntryNotFound")
        else:
            if kind == "slow":
                time.sleep(20)
            self.answer(kind)

    def listed(self):
        """Repositories quantized from a model, its makers' and a stranger's."""
        asked = parse_qs(urlsplit(self.path).query)["filter"][0].removeprefix("base_model:quantized:")
        if asked.endswith("/unlisted"):
            self.refuse(400, "BadRequest")
            return
        name = asked.partition("/")[2]
        made = (f"RedHatAI/{name}-FP8-dynamic", f"stranger/{name}-AWQ", f"unsloth/{name}-GGUF", "Qwen/other")
        raw = json.dumps([{"id": one, "sha": COMMIT, "tags": []} for one in made]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def beginning(self):
        """The first bytes of the weights, and never the rest."""
        asked = re.fullmatch(r"bytes=0-(\d+)", self.headers.get("Range", ""))
        if self.command != "HEAD" and not asked:
            self.refuse(400, "TheWholeFile")
            return
        body = (header() + bytes(1 << 20))[: int(asked[1]) + 1] if asked else b""
        self.send_response(206 if asked else 200)
        self.send_header("ETag", '"weights"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Range", f"bytes 0-{max(len(body) - 1, 0)}/{WEIGHTS}")
        self.send_header("Content-Length", str(len(body) if asked else WEIGHTS))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer(self, kind):
        body = FRESH if kind == "fresh" else BODY
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # a client that gave up
                self.wfile.write(body[:40] if kind == "cut" else body)
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
