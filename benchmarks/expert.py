"""A hundred ordinary questions beside the answer of an engineer: good, another answer, or wrong.

    python benchmarks/expert.py [--all]

The questions, the answers and their arithmetic stand in `expert_questions.jsonl`. Wrong is an answer that
fits where nothing can, finds nothing where something must, or names what the row says never works. The exit
code is 1 if one is wrong or fewer than 95 in 100 are good.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import memserve
from memserve.errors import DoesNotFit

ROWS = Path(__file__).with_name("expert_questions.jsonl")
FORMATS = {"fp8", "w8a8", "w4a8", "mxfp4", "nvfp4", "gptq", "awq", "nf4"}
WIDTHS = {"none": "16-bit", "fp8": "8-bit", "w8a8": "8-bit", "int8": "8-bit"}


def questions() -> list[dict[str, Any]]:
    """The rows after the head."""
    return [json.loads(line) for line in ROWS.read_text("utf-8").splitlines()[1:]]


def width(quantization: str) -> str:
    """How many bits a weight has, in a word."""
    gguf = re.match(r"gguf-i?q(\d)", quantization)
    return f"{gguf[1]}-bit" if gguf else WIDTHS.get(quantization, "4-bit")


def answer(ask: dict[str, Any]) -> set[str]:
    """The words of the planner's answer; none where nothing fits."""
    try:
        plan = memserve.plan.best(**ask)
    except DoesNotFit:
        return set()
    told = plan.to_dict()
    cards = 1
    for name in ("tensor_parallel", "pipeline_parallel", "data_parallel"):
        cards *= told[name] or 1
    words = {told["backend"], told["quantization"], told["dtype"]}
    return words | {width(told["quantization"]), f"cards{cards}"}


def kind(word: str) -> str:
    """What a word speaks of."""
    if word.endswith("-bit") or word in FORMATS:
        return "format"
    return "cards" if word.startswith("cards") else "engine"


def judge(row: dict[str, Any], words: set[str]) -> str:
    """good, another or wrong."""
    fits = row.get("fits", True)
    if (fits is not None and bool(words) != fits) or words & set(row["never"]):
        return "wrong"
    if not words:
        return "good"
    kinds = {kind(word) for word in row["good"]}
    named = {kind(word) for word in row["good"] if word in words}
    return "good" if named == kinds else "another"


def main() -> int:
    """Ask all, print what is not good, and the counts."""
    counts: Counter[str] = Counter()
    for row in questions():
        words = answer(row["ask"])
        judged = judge(row, words)
        counts[judged] += 1
        if judged != "good" or "--all" in sys.argv:
            print(f"{judged:<8} {row['ask']}: {sorted(words) or 'nothing fits'}; {row['why']}")
    total = sum(counts.values())
    print(f"{total} questions:", ", ".join(f"{counts[word]} {word}" for word in ("good", "another", "wrong")))
    return int(counts["wrong"] > 0 or counts["good"] < 0.95 * total)


if __name__ == "__main__":
    sys.exit(main())
