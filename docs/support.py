"""Draws docs/support.md, the support matrix, from the conformance suite's reports.

python docs/support.py --reports FOLDER [--check]     --check: only say whether the page is still true
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("support.md")
FIELDS = (
    "chat", "raw", "token_ids", "tools", "thinking", "temperature", "top_k", "min_p", "seed", "stop", "n",
    "logprobs", "score", "schema", "regex", "choices", "truncate", "stream", "deterministic", "count_tokens",
    "tokenizer",
)  # fmt: skip
HEAD = """# What each backend does, and what was judged

Drawn by `python docs/support.py` from the reports of `tests/engines/run`, on two CPU cores. `-part`: of real
weights what they decide, score, structure, samples and template; `--whole` asks them all. `-tools`: thinking
and tools, on a tiny model that talks. A dash: the backend refuses the setting before any work. See
[conformance](conformance.md).

"""


def reports(folder: Path) -> dict[str, dict[str, Any]]:
    """Every report by its name; of a backend's several the last tells its capabilities."""
    paths = sorted(folder.glob("*.json"), key=lambda path: path.stem)
    return {path.stem: json.loads(path.read_text()) for path in paths}


def judged(found: dict[str, dict[str, Any]]) -> str:
    """One row a run."""
    rows = [
        "| run | engine | model | passed | skipped | expected to fail | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, report in found.items():
        totals = report["totals"]
        numbers = [totals.get(key, 0) for key in ("passed", "skipped", "expected failure", "failed")]
        rows.append(f"| {name} | {report['engine']} on {report['device']} | {report['model'] or 'its own'} | "
                    + " | ".join(map(str, numbers)) + " |")  # fmt: skip
    return "\n".join(rows)


def matrix(found: dict[str, dict[str, Any]]) -> str:
    """Capabilities of generation, a column a backend."""
    able = {
        r["backend"]: r["capabilities"]["generate"] for r in found.values() if "generate" in r["capabilities"]
    }
    rows = ["| |" + "|".join(f" {name} " for name in able) + "|", "|---" * (len(able) + 1) + "|"]
    for field in FIELDS:
        cells = [_cell(capabilities.get(field)) for capabilities in able.values()]
        rows.append(f"| {field} |" + "|".join(f" {cell} " for cell in cells) + "|")
    return "\n".join(rows)


def _cell(value: Any) -> str:
    if value is True:
        return "yes"
    if isinstance(value, list):
        return ", ".join(map(str, sorted(value))) or "-"
    return "-" if value in (False, 0, None) else str(value)


def main() -> int:
    """Write the page, or compare what it claims with new reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=Path, default=Path("tests/engines/reports"))
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    found = reports(args.reports)
    text = HEAD + judged(found) + "\n\n## Capabilities\n\n" + matrix(found) + "\n"
    if not args.check:
        PAGE.write_text(text)
        return 0
    if matrix(found) in PAGE.read_text():
        return 0
    print(f"{PAGE} no longer tells the truth: run python docs/support.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
