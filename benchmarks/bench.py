"""`memserve bench` beside GuideLLM and `vllm bench serve`: one server, one load, one after the other.

    python benchmarks/bench.py --tokenizer FOLDER [--guidellm PYTHON] [--vllm PYTHON] [--rounds 3]
        [--base-url URL --model M --template TOKENS] [--workload 128:64:24] [--concurrency 4]

Each PYTHON is the interpreter of an environment in which that tool is installed. Without --base-url
GuideLLM's own mock server answers: a first token after 400 ms, then one every 40 ms, so that what else this
machine does weighs little. Peers count a prompt without its chat template: --template says how many tokens
that is. Means, the median of the rounds; a peer's TPOT is its time after the first token over the tokens
less one (GuideLLM calls that ITL).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from memserve.serve.server import LOOPBACK, free_port, is_free

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    given = words.parse_args()
    tools: dict[str, Any] = {"memserve bench": memserve}
    tools |= {"guidellm": guidellm} if given.guidellm else {}
    tools |= {"vllm bench serve": vllm} if given.vllm else {}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in tools}
    with server(given), tempfile.TemporaryDirectory() as place:
        for number in range(given.rounds):
            for name, tool in tools.items():
                folder = Path(place, f"{number} {name}".replace(" ", "-"))
                folder.mkdir()
                found[name].append(tool(given, folder))
                print(f"round {number + 1}: {name}", *(f"{v:.2f}" for v in found[name][-1]), flush=True)
    ours = [median(values) for values in zip(*found["memserve bench"], strict=True)]
    print(f"\n{given.workload} at {given.concurrency} at once\n{'':18}", *(f"{name:>18}" for name in FIGURES))
    for name, rounds in found.items():
        theirs = [median(values) for values in zip(*rounds, strict=True)]
        cells = (f"{b:10.2f} ({b / a - 1:+6.1%})" for a, b in zip(ours, theirs, strict=True))
        print(f"{name:18}", *(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
