"""`memserve bench` beside GuideLLM and `vllm bench serve`: one server, one load, one after the other.

    python benchmarks/bench.py --tokenizer FOLDER [--guidellm PYTHON] [--vllm PYTHON] [--rounds 3]
        [--base-url URL --model M --template TOKENS [--recorded]] [--workload 128:64:24] [--concurrency 4]

Each PYTHON is the interpreter of an environment in which that tool is installed. Without --base-url
GuideLLM's own mock server answers: a first token after 400 ms, then one every 40 ms, so that what else this
machine does weighs little. Peers count a prompt without its chat template: --template says how many tokens
that is. Means, the median of the rounds; a peer's TPOT is its time after the first token over the tokens
less one (GuideLLM calls that ITL).

On a busy machine a real server's own rounds lie a factor of two apart. So --recorded puts a small proxy
before it, in a process of its own, which writes down when each request came, when its first and its last
piece went out, and its tokens; each tool's figures are divided by what the proxy saw of the very same
requests, and those are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memserve.serve.ports import free_port, is_free
from memserve.serve.server import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

PROXY = r"""
import http.client, http.server, json, sys, time
host, port, log = sys.argv[1], int(sys.argv[2]), open(sys.argv[4], "a", buffering=1)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.forward("GET", None)
    def do_POST(self):
        self.forward("POST", self.rfile.read(int(self.headers["content-length"])))
    def forward(self, method, body):
        row = {"began": time.perf_counter(), "pieces": []}
        up = http.client.HTTPConnection(host, port)
        away = ("host", "connection", "accept-encoding")
        kept = {name: value for name, value in self.headers.items() if name.lower() not in away}
        up.request(method, self.path, body, kept)
        got = up.getresponse()
        self.send_response(got.status)
        self.send_header("content-type", got.getheader("content-type") or "text/plain")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while data := got.read1(65536):
            now = time.perf_counter()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            for line in data.decode("utf-8", "replace").splitlines():
                self.piece(row, line, now)
        self.wfile.write(b"0\r\n\r\n")
        row["ended"] = time.perf_counter()
        if row["pieces"]:
            log.write(json.dumps(row) + "\n")
    def piece(self, row, line, now):
        if line.startswith("data: {"):
            event = json.loads(line[6:])
            row["tokens"] = (event.get("usage") or {}).get("completion_tokens", row.get("tokens"))
            if any((one.get("delta") or {}).get("content") for one in event.get("choices") or ()):
                row["pieces"].append(now)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer.request_queue_size = 64
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3])), Handler).serve_forever()
"""
FIGURES = ("TTFT ms", "TPOT ms", "tokens/s")
SECONDS = 900


def memserve(given: argparse.Namespace, folder: Path) -> tuple[float, ...]:
    words = ["--base-url", f"{given.base_url}/v1", "--model", given.model, "--quiet"]
    words += ["--options", f"dialect={given.dialect}"] if given.dialect else []
    load = ["--workload", given.workload, "--concurrency", str(given.concurrency)]
    run([sys.executable, "-m", "memserve", "bench", *words, *load, "-o", str(folder / "m.json")], folder)
    (row,) = json.loads((folder / "m.json").read_text())["results"]
    return row["ttft_ms"]["mean"], row["tpot_ms"]["mean"], row["output_tokens_per_s"]


def guidellm(given: argparse.Namespace, folder: Path) -> tuple[float, ...]:
    prompt, answer, count = given.workload.split(":")
    run(
        [
            str(Path(given.guidellm).with_name("guidellm")), "run", "--disable-console",
            "--backend", f"kind=openai_http,target={given.base_url},model={given.model},"
            "request_format=/v1/chat/completions",
            "--profile", f"kind=concurrent,streams={given.concurrency}",
            "--constraint", f"kind=max_requests,count={count}",
            "--tokenizer", f"kind=huggingface_auto,model={given.tokenizer}",
            "--data", f"kind=synthetic_text,prompt_tokens={int(prompt) - given.template},"
            f"output_tokens={answer}",
            "--output", f"kind=json,path={folder / 'g.json'}",
        ],
        folder,
    )  # fmt: skip
    found = json.loads((folder / "g.json").read_text())["benchmarks"][0]["metrics"]
    names = ("time_to_first_token_ms", "inter_token_latency_ms", "output_tokens_per_second")
    return tuple(found[name]["successful"]["mean"] for name in names)


def vllm(given: argparse.Namespace, folder: Path) -> tuple[float, ...]:
    prompt, answer, count = given.workload.split(":")
    run(
        [
            given.vllm, "-m", "vllm.entrypoints.cli.main", "bench", "serve", "--backend", "openai-chat",
            "--endpoint", "/v1/chat/completions", "--base-url", given.base_url, "--model", given.model,
            "--tokenizer", given.tokenizer, "--dataset-name", "random", "--ignore-eos", "--temperature", "0",
            "--random-input-len", str(int(prompt) - given.template), "--random-output-len", answer,
            "--num-prompts", count, "--max-concurrency", str(given.concurrency), "--num-warmups", "4",
            "--seed", str(folder.stat().st_mtime_ns % 2**31),
            "--save-result", "--result-dir", str(folder), "--result-filename", "v.json",
        ],
        folder,
    )  # fmt: skip
    found = json.loads((folder / "v.json").read_text())
    return found["mean_ttft_ms"], found["mean_tpot_ms"], found["output_throughput"]


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])} ... failed: {(done.stderr or done.stdout)[-800:]}")


@contextmanager
def recorder(given: argparse.Namespace, folder: Path) -> Iterator[Path | None]:
    """The proxy's log, which it adds to; None where nothing is recorded."""
    if not given.recorded:
        yield None
        return
    address, port, log = urlsplit(given.base_url), free_port(LOOPBACK), folder / "recorded.jsonl"
    given.base_url = f"http://{LOOPBACK}:{port}"
    words = [str(address.hostname), str(address.port), str(port), str(log)]
    with subprocess.Popen([sys.executable, "-c", PROXY, *words]) as process:
        try:
            while is_free(LOOPBACK, port) and process.poll() is None:
                subprocess.run(["sleep", "0.2"], check=True)
            yield log
        finally:
            process.terminate()


def seen(log: Path, count: int) -> tuple[float, ...]:
    """What the proxy saw of the last requests: those before them warmed up."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rows = sorted(rows, key=lambda row: row["began"])[-count:]
    os.truncate(log, 0)
    tokens = [row.get("tokens") or len(row["pieces"]) for row in rows]
    each = [
        (row["pieces"][-1] - row["pieces"][0]) / (made - 1) for row, made in zip(rows, tokens, strict=True)
    ]
    whole = max(row["ended"] for row in rows) - min(row["began"] for row in rows)
    first = fmean(row["pieces"][0] - row["began"] for row in rows)
    return first * 1e3, fmean(each) * 1e3, sum(tokens) / whole


@contextmanager
def server(given: argparse.Namespace) -> Iterator[None]:
    """GuideLLM's mock server, where none is named."""
    if given.base_url:
        yield
        return
    port = free_port(LOOPBACK)
    given.base_url, given.model, given.template = f"http://{LOOPBACK}:{port}", "mock", 0
    words = ["--port", str(port), "--ttft-ms", "400", "--itl-ms", "40", "--model", "mock"]
    words += ["--output-tokens", given.workload.split(":")[1]]
    program = [str(Path(given.guidellm).with_name("guidellm")), "mock-server", *words]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while is_free(LOOPBACK, port) and process.poll() is None:
                process.poll()
                subprocess.run(["sleep", "1"], check=True)
            yield
        finally:
            process.terminate()


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--base-url")
    words.add_argument("--model")
    words.add_argument("--dialect", default="")
    words.add_argument("--tokenizer", required=True)
    words.add_argument("--template", type=int, default=0)
    words.add_argument("--guidellm")
    words.add_argument("--vllm")
    words.add_argument("--workload", default="128:64:24")
    words.add_argument("--concurrency", type=int, default=4)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--recorded", action="store_true")
    given = words.parse_args()
    tools: dict[str, Any] = {"memserve bench": memserve}
    tools |= {"guidellm": guidellm} if given.guidellm else {}
    tools |= {"vllm bench serve": vllm} if given.vllm else {}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in tools}
    count = int(given.workload.split(":")[2])
    with server(given), tempfile.TemporaryDirectory() as place, recorder(given, Path(place)) as log:
        for number in range(given.rounds):
            for name, tool in tools.items():
                folder = Path(place, f"{number} {name}".replace(" ", "-"))
                folder.mkdir()
                told = tool(given, folder)
                print(f"round {number + 1}: {name}", *(f"{v:.2f}" for v in told), flush=True)
                if log is not None:
                    told = tuple(mine / theirs for mine, theirs in zip(told, seen(log, count), strict=True))
                    print("    of what the proxy saw:", *(f"{v:.4f}" for v in told), flush=True)
                found[name].append(told)
    ours = [median(values) for values in zip(*found["memserve bench"], strict=True)]
    print(f"\n{given.workload} at {given.concurrency} at once\n{'':18}", *(f"{name:>18}" for name in FIGURES))
    for name, rounds in found.items():
        theirs = [median(values) for values in zip(*rounds, strict=True)]
        cells = (f"{b:10.4g} ({b / a - 1:+6.1%})" for a, b in zip(ours, theirs, strict=True))
        print(f"{name:18}", *(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
