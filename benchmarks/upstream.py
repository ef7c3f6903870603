"""LongMemEval's own scripts, not a line changed, against `memserve serve --backend`: answers, then the judge.

    python benchmarks/upstream.py CHECKOUT MODEL_FOLDER [--backend hf] [--questions 4]

Needs the scripts' own packages (openai, backoff, tiktoken, transformers); they look at localhost:8001.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from examples.longmemeval.data import synthetic  # noqa: E402

READER, JUDGE = "microsoft/phi-4", "meta-llama/Meta-Llama-3.1-70B-Instruct"
"""What the scripts' tables call a local reader and a local judge: the names that the endpoint answers to."""
HOW = {
    "retriever_type": "orig-session", "topk_context": "1000", "history_format": "json", "useronly": "false",
    "cot": "false", "openai_key": "EMPTY", "openai_base_url": "http://localhost:8001/v1", "gen_length": "24",
    "model_name": READER, "model_alias": "phi-4",
}  # fmt: skip


def script(checkout: Path, file: str, work: Path, *words: str) -> str:
    """What one of the checkout's scripts prints."""
    command = [sys.executable, str(checkout / "src" / file), *words]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{file}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    return done.stdout


def served(model: Path, backend: str, options: list[str]) -> subprocess.Popen[str]:
    names = [word for name in (READER, JUDGE) for word in ("--name", name)]
    words = ["--backend", backend, "--model", str(model), "--port", "8001", "--no-key", *names]
    more = ["--options", *options] if options else []
    command = [sys.executable, "-m", "memserve.serve", *words, *more]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    for line in server.stdout:
        if line.startswith("ready:"):
            return server
    raise SystemExit("the endpoint did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("model", type=Path, help="a folder with its tokenizer, which the scripts open, too")
    parser.add_argument("--backend", default="hf")
    parser.add_argument("--options", nargs="*", default=["dtype=float32"])
    parser.add_argument("--questions", type=int, default=4)
    chosen = parser.parse_args()
    checkout = chosen.checkout.resolve()
    server = served(chosen.model, chosen.backend, chosen.options)
    try:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            (work / READER).parent.mkdir()
            (work / READER).symlink_to(chosen.model.resolve())
            data = work / "longmemeval_oracle.json"
            data.write_text(json.dumps(synthetic(chosen.questions, sessions=3)))
            flags = [word for name, value in HOW.items() for word in (f"--{name}", value)]
            flags += ["--in_file", str(data), "--out_dir", "."]
            script(checkout, "generation/run_generation.py", work, *flags)
            (hypotheses,) = work.glob("*_testlog_*")
            answered = len(hypotheses.read_text().splitlines())
            print(f"run_generation.py: {answered} of {chosen.questions} answered")
            words = ["llama-3.1-70b-instruct", str(hypotheses), str(data)]
            told = script(checkout, "evaluation/evaluate_qa.py", work, *words)
            print(f"evaluate_qa.py: {re.findall('Accuracy: .*', told)[0]}")
    finally:
        server.terminate()
        server.wait(timeout=60)
    diff = ["git", "-C", str(checkout), "diff", "--stat"]
    changed = subprocess.run(diff, capture_output=True, text=True, check=True).stdout
    print(f"lines changed in the checkout: {changed.strip() or 0}")


if __name__ == "__main__":
    main()
