"""Two benchmarks' own scripts, not a line changed, against `memserve serve`: LongMemEval's and LoCoMo's.

    python benchmarks/upstream.py CHECKOUT MODEL_FOLDER [--backend hf] [--questions 5] [--python PYTHON]

CHECKOUT is yours, of the one or the other (LoCoMo: the branch with `task_eval`). The scripts run under
`--python`, with their own packages. LongMemEval: openai, backoff, tiktoken, transformers; it looks at
localhost:8001. LoCoMo: openai==0.28.1, anthropic, google-generativeai, tiktoken, torch, transformers,
bert-score, nltk, regex, scipy, seaborn, tqdm.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from contextlib import contextmanager
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from examples.longmemeval.data import synthetic  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

READER, JUDGE = "microsoft/phi-4", "meta-llama/Meta-Llama-3.1-70B-Instruct"
"""What LongMemEval's tables call a local reader and a local judge: the names that the endpoint answers to."""
HOW = {
    "retriever_type": "orig-session", "topk_context": "1000", "history_format": "json", "useronly": "false",
    "cot": "false", "openai_key": "EMPTY", "openai_base_url": "http://localhost:8001/v1", "gen_length": "24",
    "model_name": READER, "model_alias": "phi-4",
}  # fmt: skip
GPT, FILE = "gpt-3.5-turbo", "41_post_qa_post_clean_adv.json"
"""The model that LoCoMo's script asks for, and the one file that it reads."""


def script(args: argparse.Namespace, file: str, work: Path, *words: str, **world: str) -> str:
    """What one of the checkout's scripts prints."""
    command = [args.python, str(args.checkout / file), *words]
    env = {**os.environ, **world}
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{file}: {done.stdout[-1000:]}{done.stderr[-3000:]}")
    return done.stdout


@contextmanager
def served(args: argparse.Namespace, names: tuple[str, ...], *words: str) -> Iterator[str]:
    """The endpoint's address while it runs."""
    model = ["--backend", args.backend, "--model", str(args.model), "--task", "generate"]
    known = [word for name in names for word in ("--name", name)]
    options = ["--options", *args.options] if args.options else []
    command = [sys.executable, "-m", "memserve.serve", *model, "--no-key", *known, *words, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        found = re.match(r"ready: (\S+)", server.stdout.readline())
        if not found:
            raise SystemExit("the endpoint did not start")
        try:
            yield found[1]
        finally:
            server.terminate()


def longmemeval(args: argparse.Namespace, work: Path) -> None:
    """Answers, then the judge."""
    (work / READER).parent.mkdir()
    (work / READER).symlink_to(args.model)
    data = work / "longmemeval_oracle.json"
    data.write_text(json.dumps(synthetic(args.questions, sessions=3)))
    flags = [word for name, value in HOW.items() for word in (f"--{name}", value)]
    flags += ["--in_file", str(data), "--out_dir", "."]
    with served(args, (READER, JUDGE), "--port", "8001"):
        script(args, "src/generation/run_generation.py", work, *flags)
        (hypotheses,) = work.glob("*_testlog_*")
        answered = len(hypotheses.read_text().splitlines())
        print(f"run_generation.py: {answered} of {args.questions} answered")
        words = ["llama-3.1-70b-instruct", str(hypotheses), str(data)]
        told = script(args, "src/evaluation/evaluate_qa.py", work, *words)
    print(f"evaluate_qa.py: {re.findall('Accuracy: .*', told)[0]}")


def locomo(args: argparse.Namespace, work: Path) -> None:
    """With the base URL alone. Its retrieval by OpenAI's vectors fails in its own code, before it asks."""
    (work / FILE).write_text(json.dumps(conversation(args.checkout, args.questions)))
    flags = ["--data-dir", str(work), "--out-dir", str(work / "out"), "--model", GPT, "--batch-size", "1"]
    with served(args, (GPT,)) as url:
        world = {"OPENAI_API_BASE": url, "OPENAI_API_KEY": "none"}
        told = script(args, "task_eval/evaluate_gpts.py", work, *flags, **world)
    rows = json.loads((work / "out" / FILE).read_text())["qa"]
    answered = sum(f"{GPT}_prediction" in row for row in rows)
    score = re.findall("Exact Match Acc.*", told)[0]
    print(f"evaluate_gpts.py: {answered} of {len(rows)} answered; {score}")


def conversation(checkout: Path, questions: int) -> dict[str, Any]:
    """The published one in the older layout that the script reads; its categories in turn."""
    with zipfile.ZipFile(checkout / "data" / "locomo10.zip") as archive:
        name = next(one for one in archive.namelist() if one.endswith("/41.json"))
        found = json.loads(archive.read(name))
    for key, turns in found.items():
        if re.fullmatch(r"session_\d+", key):
            for turn in turns:
                turn["clean_text"] = turn["text"]
    kinds = [[row for row in found["qa"] if row["category"] == kind] for kind in range(1, 6)]
    rows = [row for row in chain(*zip_longest(*kinds)) if row][:questions]
    found["qa"] = [{**row, "answer": row.get("answer", row.get("adversarial_answer"))} for row in rows]
    return dict(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=lambda word: Path(word).resolve())
    parser.add_argument("model", type=lambda word: Path(word).resolve(), help="a folder with its tokenizer")
    parser.add_argument("--backend", default="hf")
    parser.add_argument("--options", nargs="*", default=["dtype=float32"])
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--python", default=sys.executable, help="it has the scripts' packages")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (locomo if (args.checkout / "task_eval").is_dir() else longmemeval)(args, Path(folder))
    diff = ["git", "-C", str(args.checkout), "diff", "--stat", "--", "*.py"]
    changed = subprocess.run(diff, capture_output=True, text=True, check=True).stdout
    print(f"lines changed in the checkout: {changed.strip() or 0}")


if __name__ == "__main__":
    main()
