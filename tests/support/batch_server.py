"""Batch services of three providers on loopback: what was submitted stays, whatever becomes of the client."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ROOT = Path(__file__).parents[2]


class BatchServer(ThreadingHTTPServer):
    """`seconds` until a batch has ended; `slow` seconds between taking a batch and saying so."""

    daemon_threads = True

    def __init__(
        self, seconds: float = 0.1, slow: float = 0.0, expire: int = 0, fail: tuple[str, ...] = (),
        odd: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        super().__init__(("127.0.0.1", 0), Handler)
        self.seconds, self.slow, self.fail = seconds, slow, fail
        self.odd = odd
        """What stands where the answer to a prompt should."""
        self.echo = False
        """Whether each answer comes a second time, as a failure."""
        self.expire = expire
        """Requests that a batch leaves unanswered, once each."""
        self.files: dict[str, list[dict[str, Any]]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.single: list[str] = []
        self.guard = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __enter__(self) -> BatchServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def asked(self) -> Counter[str]:
        """How often each prompt was submitted."""
        return Counter(prompt for batch in self.batches.values() for _, prompt in batch["requests"])

    def create(self, requests: list[tuple[str, str]], **known: Any) -> dict[str, Any]:
        """Take a batch."""
        with self.guard:
            name = f"b{len(self.batches)}"
            left, self.expire = self.expire, 0
            batch = {"id": name, "requests": requests, "left": left, "at": time.time(), **known}
            self.batches[name] = batch
        threading.Event().wait(self.slow * random.random())
        return batch

    def ended(self, batch: dict[str, Any]) -> bool:
        return time.time() - batch["at"] >= self.seconds

    def results(self, batch: dict[str, Any]) -> list[tuple[str, str, str]]:
        """Name, prompt and what became of it, in another order than asked."""
        rows = [
            (own, prompt, "failed" if prompt in self.fail else "done") for own, prompt in batch["requests"]
        ]
        told = [(own, prompt, "expired" if place < batch["left"] else how)
                for place, (own, prompt, how) in reversed(list(enumerate(rows)))]  # fmt: skip
        return told + [(own, prompt, "expired") for own, prompt, _ in told] * self.echo

    def told(self, row: Callable[..., dict[str, Any]], own: str, prompt: str, how: str) -> dict[str, Any]:
        """A row of results; of no known shape where that was asked for."""
        whole = row(own, prompt, how)
        kept = ("custom_id", "recordId", "metadata")
        return whole if prompt not in self.odd else {
            name: value if name in kept else self.odd[prompt] for name, value in whole.items()
        }  # fmt: skip


def openai(server: BatchServer, method: str, path: str, query: dict[str, list[str]], body: bytes) -> Any:
    """The routes of /v1."""
    if method == "POST" and path == "/v1/files":
        lines = [json.loads(line) for line in re.findall(rb'^\{"custom_id".*\}$', body, re.MULTILINE)]
        server.files[name := f"f{len(server.files)}"] = lines
        return {"id": name, "object": "file"}
    if method == "POST" and path == "/v1/batches":
        wanted = json.loads(body)
        rows = [
            (one["custom_id"], one["body"]["messages"][0]["content"])
            for one in server.files[wanted["input_file_id"]]
        ]
        return _shown(server, server.create(rows, metadata=wanted["metadata"]))
    if path == "/v1/batches":
        return {"data": [_shown(server, one) for one in reversed(server.batches.values())], "has_more": False}
    if found := re.fullmatch(r"/v1/batches/(\w+)", path):
        return _shown(server, server.batches[found[1]])
    if found := re.fullmatch(r"/v1/files/(out|err)(\w+)/content", path):
        batch = server.batches[found[2]]
        good = found[1] == "out"
        return [server.told(_line, *row) for row in server.results(batch) if (row[2] == "done") == good]
    return None


def _shown(server: BatchServer, batch: dict[str, Any]) -> dict[str, Any]:
    status = ("expired" if batch["left"] else "completed") if server.ended(batch) else "in_progress"
    done = {"output_file_id": f"out{batch['id']}", "error_file_id": f"err{batch['id']}"}
    return {"id": batch["id"], "status": status, "created_at": int(batch["at"]),
            "metadata": batch["metadata"], **(done if server.ended(batch) else {})}  # fmt: skip


def _line(own: str, prompt: str, how: str) -> dict[str, Any]:
    if how == "done":
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": prompt.upper()},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        body = {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
        return {"custom_id": own, "response": {"status_code": 200, "body": body}, "error": None}
    if how == "expired":
        return {
            "custom_id": own,
            "response": None,
            "error": {"code": "batch_expired", "message": "not in time"},
        }
    said = {"error": {"message": "no", "type": "invalid_request_error", "code": None}}
    return {"custom_id": own, "response": {"status_code": 400, "body": said}, "error": None}


def anthropic(server: BatchServer, method: str, path: str, query: dict[str, list[str]], body: bytes) -> Any:
    """The routes of /v1/messages/batches."""
    if method == "POST":
        rows = [
            (one["custom_id"], one["params"]["messages"][0]["content"])
            for one in json.loads(body)["requests"]
        ]
        return _message_batch(server, server.create(rows))
    if path.endswith("/results"):
        return [server.told(_result, *row) for row in server.results(server.batches[path.split("/")[-2]])]
    if path == "/v1/messages/batches":
        return {
            "data": [_message_batch(server, one) for one in reversed(server.batches.values())],
            "has_more": False,
        }
    return _message_batch(server, server.batches[path.rpartition("/")[2]])


def _message_batch(server: BatchServer, batch: dict[str, Any]) -> dict[str, Any]:
    ended, made = server.ended(batch), time.strftime("%Y-%m-%dT%H:%M:%S.5Z", time.gmtime(batch["at"]))
    counts = {
        "processing": 0 if ended else len(batch["requests"]),
        "succeeded": len(batch["requests"]) if ended else 0,
    }
    return {"id": batch["id"], "processing_status": "ended" if ended else "in_progress", "created_at": made,
            "request_counts": counts}  # fmt: skip


def _result(own: str, prompt: str, how: str) -> dict[str, Any]:
    if how == "done":
        message = {"id": "x", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
                   "content": [{"type": "text", "text": prompt.upper()}],
                   "usage": {"input_tokens": 10, "output_tokens": 5}}  # fmt: skip
        return {"custom_id": own, "result": {"type": "succeeded", "message": message}}
    if how == "expired":
        return {"custom_id": own, "result": {"type": "expired"}}
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    return {"custom_id": own, "result": {"type": "errored", "error": error}}


def gemini(server: BatchServer, method: str, path: str, query: dict[str, list[str]], body: bytes) -> Any:
    """The routes of /v1beta."""
    if method == "POST":
        wanted = json.loads(body)["batch"]
        rows = [(one["metadata"]["key"], one["request"]["contents"][0]["parts"][0]["text"])
                for one in wanted["input_config"]["requests"]["requests"]]  # fmt: skip
        return _operation(server, server.create(rows, display=wanted["display_name"]))
    if path == "/v1beta/batches":
        return {"operations": [_operation(server, one) for one in reversed(server.batches.values())]}
    return _operation(server, server.batches[path.rpartition("/")[2]])


def _operation(server: BatchServer, batch: dict[str, Any]) -> dict[str, Any]:
    ended = server.ended(batch)
    state = {
        "displayName": batch["display"],
        "state": "BATCH_STATE_SUCCEEDED" if ended else "BATCH_STATE_RUNNING",
    }
    rows = [server.told(_inline, *row) for row in server.results(batch)] if ended else []
    done = {"done": True, "response": {"inlinedResponses": {"inlinedResponses": rows}}} if ended else {}
    return {"name": f"batches/{batch['id']}", "metadata": state, **done}


def _inline(own: str, prompt: str, how: str) -> dict[str, Any]:
    if how == "done":
        part = {"content": {"parts": [{"text": prompt.upper()}], "role": "model"}, "finishReason": "STOP"}
        usage = {"promptTokenCount": 10, "candidatesTokenCount": 5}
        return {"metadata": {"key": own}, "response": {"candidates": [part], "usageMetadata": usage}}
    code, words = (504, "DEADLINE_EXCEEDED") if how == "expired" else (400, "INVALID_ARGUMENT")
    return {"metadata": {"key": own}, "error": {"code": code, "message": "no", "status": words}}


ACCESS, SECRET, REGION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", "us-east-1"


def aws(server: BatchServer, method: str, path: str, query: dict[str, list[str]], body: bytes) -> Any:
    """S3, the control plane of Bedrock, and Converse."""
    if path.endswith("/converse"):
        server.single.append(text := json.loads(body)["messages"][0]["content"][0]["text"])
        return _converse(text)
    if method == "PUT":
        server.objects[unquote(path)] = body
        return {}
    if path == "/model-invocation-job":
        wanted = json.loads(body)
        name = wanted["clientRequestToken"]
        found = next((one for one in server.batches.values() if one["token"] == name), None)
        if found is None:
            place = wanted["inputDataConfig"]["s3InputDataConfig"]["s3Uri"].removeprefix("s3:/")
            lines = [json.loads(line) for line in server.objects[place].splitlines()]
            rows = [
                (one["recordId"], one["modelInput"]["messages"][0]["content"][0]["text"]) for one in lines
            ]
            assert wanted["modelInvocationType"] == "Converse"
            found = server.create(rows, token=name, name=wanted["jobName"])
        return {"jobArn": _arn(found)}
    if path == "/model-invocation-jobs":
        rows = [
            _job(server, one) for one in server.batches.values() if query["nameContains"][0] in one["name"]
        ]
        return {"invocationJobSummaries": rows}
    if path.startswith("/model-invocation-job/"):
        return _job(server, server.batches[path.rpartition("%2F")[2]])
    batch = server.batches[path.split("/")[-2]]
    assert path.endswith(f"/{batch['id']}/{batch['token']}.jsonl.out")
    return [server.told(_record, *row) for row in server.results(batch) if row[2] != "expired"]


def _arn(batch: dict[str, Any]) -> str:
    return f"arn:aws:bedrock:{REGION}:1234:model-invocation-job/{batch['id']}"


def _job(server: BatchServer, batch: dict[str, Any]) -> dict[str, Any]:
    done = "PartiallyCompleted" if batch["left"] else "Completed"
    status = done if server.ended(batch) else "InProgress"
    return {"jobArn": _arn(batch), "jobName": batch["name"], "status": status}


def _converse(text: str) -> dict[str, Any]:
    usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
    message = {"role": "assistant", "content": [{"text": text.upper()}]}
    return {"output": {"message": message}, "stopReason": "end_turn", "usage": usage}


def _record(own: str, prompt: str, how: str) -> dict[str, Any]:
    if how == "done":
        return {"recordId": own, "modelInput": {}, "modelOutput": _converse(prompt)}
    return {"recordId": own, "modelInput": {}, "error": {"errorCode": 400, "errorMessage": "no"}}


def signed(method: str, url: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether AWS's own code makes the same signature."""
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    shown = headers["Authorization"]
    scope, names = shown.split("Credential=")[1].split(",")[0], shown.split("SignedHeaders=")[1].split(",")[0]
    service = scope.split("/")[3]
    kept = {name: headers[name] for name in names.split(";")}
    request = AWSRequest(method, url, headers=kept, data=body)
    request.context["timestamp"] = headers["X-Amz-Date"]
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    proof = kind(Credentials(ACCESS, SECRET), service, REGION)
    told = proof.string_to_sign(request, proof.canonical_request(request))
    whole = service != "s3" or headers["X-Amz-Content-Sha256"] == sha256(body).hexdigest()
    right = "s3" if "model" not in url else "bedrock"
    return whole and service == right and shown.endswith(proof.signature(told, request))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BatchServer

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        amazon = self.headers.get("Authorization", "").startswith("AWS4")
        if amazon and not signed(method, f"{self.server.url}{self.path}", self.headers, body):  # type: ignore[arg-type]
            self.send_error(403)
            return
        dialect = (
            aws
            if amazon
            else gemini
            if "v1beta" in url.path
            else anthropic
            if "messages" in url.path
            else openai
        )
        found = dialect(self.server, method, url.path, parse_qs(url.query), body)
        rows = found if isinstance(found, list) else [found]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode() if found is not None else b"{}"
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


PLACE = {"batch_uri": "s3://bucket/some where", "batch_role": "arn:aws:iam::1234:role/batch"}
FAST = (
    "import sys; from memserve.run import batch_service as b; b.FIRST_POLL = b.LOOK_SECONDS = 0.05;"
    "from memserve.run.__main__ import main; sys.exit(main(sys.argv[1:]))"
)


def run(
    server: BatchServer, requests: Path, output: Path, backend: str = "openai", *more: str
) -> subprocess.Popen[str]:
    """The command, on this server."""
    base = server.url + {"openai": "/v1", "gemini": "/v1beta"}.get(backend, "")
    words = [
        str(requests),
        "-o",
        str(output),
        "--batch",
        "--backend",
        backend,
        "--model",
        "m",
        "--base-url",
        base,
    ]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "backends")])
    env = {**os.environ, "OPENAI_API_KEY": "k", "PYTHONPATH": path}
    if backend == "bedrock":
        env |= {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_REGION": REGION}  # fmt: skip
        words += ["--options", *(f"{name}={value}" for name, value in PLACE.items())]
    return subprocess.Popen([sys.executable, "-c", FAST, *words, "--quiet", *more], text=True, env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def killed(folder: Path, kills: int, count: int, backend: str, seed: int) -> tuple[int, int, int]:
    """Kills, prompts submitted twice and answers lost, of runs that are killed at random moments."""
    dice = random.Random(seed)
    requests, output = folder / "r.jsonl", folder / "a.jsonl"
    requests.write_text("".join(json.dumps({"id": n, "prompt": f"p{n}"}) + "\n" for n in range(count)))
    with BatchServer(seconds=0.3, slow=0.6) as server:
        done = 0
        for _ in range(kills):
            process = run(server, requests, output, backend)
            try:
                process.communicate(timeout=dice.uniform(0.3, 2.0))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                done += 1
                continue
            break
        process = run(server, requests, output, backend)
        _, words = process.communicate(timeout=120)
        assert process.returncode == 0, words
        twice = sum(number - 1 for number in server.asked.values())
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    right = {row["id"] for row in rows if row["text"] == f"P{row['id']}"}
    return done, twice, count - len(right)
