"""Checkpoints that `memserve compress` makes, judged again by plain code, and the library's CPU beside ours.

python benchmarks/compress.py MODEL --python PATH ... [--to METHOD ...] [--samples N] [--plain]

MODEL: a folder with 16-bit weights. PATH: an interpreter with the library, repeated where one has not all.
`told` is the rise of perplexity in report.json, `plain` the same by transformers alone on the same windows;
--plain also makes the checkpoint (fp8, w8a8, w4a16) by a script of the library's own calls: CPU seconds of
that whole process, and of all of `memserve compress` but its two steps of judging.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from memserve.compress import text
from memserve.compress.interpreter import Interpreters
from memserve.engines import making
from memserve.model import load

METHODS = (
    "fp8",
    "w8a8",
    "w4a16",
    "gptq",
    "awq",
    "nvfp4",
    "nf4",
    "int8",
    "layers:2",
    "width:0.75",
    "layers:2+w4a16",
    "gguf-q4_k_m",
)
WINDOW, WINDOWS, LENGTH = 256, 4, 128
PLAIN = f"""
import math, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
words = AutoTokenizer.from_pretrained(sys.argv[1])
ids = torch.tensor(words(open(sys.argv[3]).read(), add_special_tokens=False)["input_ids"])
ids = ids[: {WINDOW} * {WINDOWS}].view({WINDOWS}, {WINDOW})
found = []
for folder in sys.argv[1:3]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    with torch.no_grad():
        logits = [model(row[None]).logits[0, :-1].float() for row in ids]
    losses = [torch.nn.functional.cross_entropy(one, row[1:]) for one, row in zip(logits, ids)]
    found.append(math.exp(sum(map(float, losses)) / len(losses)))
print(found[1] / found[0] - 1)
"""
LIBRARY = """
import sys, torch
from datasets import Dataset
from llmcompressor import oneshot
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from transformers import AutoModelForCausalLM, AutoTokenizer
source, target, to, file, samples, group = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
words = AutoTokenizer.from_pretrained(source)
more = {}
schemes = {"fp8": "FP8_DYNAMIC", "w8a8": "W8A8"}
if to == "w4a16":
    grouped = {"strategy": "group", "group_size": int(group)}
    weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, **grouped)
    whole = {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}
    recipe = [GPTQModifier(config_groups=whole, ignore=["lm_head"])]
else:
    recipe = [QuantizationModifier(targets="Linear", scheme=schemes[to], ignore=["lm_head"])]
if to != "fp8":
    ids = words(open(file).read(), add_special_tokens=False)["input_ids"]
    rows = [ids[at * 128 : at * 128 + 128] for at in range(int(samples))]
    more = {"dataset": Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * 128 for _ in rows]}),
            "max_seq_length": 128, "num_calibration_samples": len(rows)}
if to == "w8a8":
    recipe.insert(0, SmoothQuantModifier(smoothing_strength=0.8, ignore=["lm_head"]))
oneshot(model=model, recipe=recipe, **more)
model.save_pretrained(target, save_compressed=True)
words.save_pretrained(target)
"""


def cpu(*words: str) -> tuple[float, str]:
    """CPU seconds of a process with all its threads, and what it printed."""
    before = os.times()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, done.stdout


def made(args: argparse.Namespace, to: str, folder: Path) -> tuple[float, dict[str, Any]]:
    """CPU seconds and the report of one call."""
    words = [word for one in to.split("+") for word in ("--to", one)]
    sizes = {"samples": args.samples, "length": LENGTH, "window": WINDOW, "windows": WINDOWS}
    words += [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    call = [sys.executable, "-m", "memserve.compress", args.model, *words, "-o", str(folder), "--json"]
    pythons = [word for one in args.python for word in ("--python", one)]
    spent, said = cpu(*call, *pythons)
    report: dict[str, Any] = json.loads(said)
    return spent - sum(report["steps"][at]["cpu_seconds"] for at in (0, -1)), report


def row(args: argparse.Namespace, to: str, scratch: Path) -> str:
    """One line of the table."""
    folder = scratch / to.replace(":", "-")
    ours, report = made(args, to, folder)
    method = making.read(to.split("+"))[-1]
    python = Interpreters(args.python).having(method.library)
    judged = scratch / "judged.txt"
    plain = "-"
    if not to.startswith("gguf"):
        said = cpu(str(python), "-c", PLAIN, args.model, str(folder), str(judged))[1]
        plain = f"{float(said.split()[-1]):+.2%}"
    beside = "-"
    if args.plain and to in ("fp8", "w8a8", "w4a16"):
        group, file = method.group(load(args.model)), scratch / "calibration.txt"
        words = [args.model, str(scratch / "plain"), to, str(file), str(args.samples), str(group)]
        alone = cpu(str(python), "-c", LIBRARY, *words)[0]
        beside = f"{ours:.1f} s, {alone:.1f} s for a plain script: {ours / alone - 1:+.0%}"
    size = report["after"]["bytes"] / 2**20
    cells = (to, f"{size:.1f} MiB, {report['ratio']:.2f} x", f"{report['loss']:+.2%}", plain,
             f"{report['greedy_agreement']:.0%}", f"{report['kl']:.4f}", report["grade"],
             f"{sum(one['cpu_seconds'] for one in report['steps'][1:-1]):.1f}", beside)  # fmt: skip
    return f"| {' | '.join(cells)} |"


def line(args: argparse.Namespace, to: str, scratch: Path) -> str:
    """The row, or why there is none."""
    try:
        return row(args, to, scratch)
    except subprocess.CalledProcessError as error:
        return f"| {to} | failed: {error.stderr.strip().splitlines()[-1][:200]} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--python", action="append", default=[])
    parser.add_argument("--to", nargs="+", default=METHODS)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--plain", action="store_true")
    args = parser.parse_args()
    args.python = args.python or [sys.executable]
    print(
        "| method | weights | told | plain | same greedy tokens | KL | grade | CPU seconds | library alone |"
    )
    with tempfile.TemporaryDirectory() as name:
        words = text.read(None)
        (Path(name) / "judged.txt").write_text(words.judged, encoding="utf-8")
        (Path(name) / "calibration.txt").write_text(words.calibration, encoding="utf-8")
        for to in args.to:
            print(line(args, to, Path(name)), flush=True)


if __name__ == "__main__":
    main()
