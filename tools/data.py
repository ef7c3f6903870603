"""Data files in one form: says which are not, and with --write makes them so.

python tools/data.py [--write] [FILE ...]

A file is an object that begins with `note` (what it holds, how it is read), `source` (where rows name none of
their own) and `date` (YYYY-MM-DD, when it was read); in JSON lines the first line is that head. What fits in
a line stands on one; rows stand below each other; a longer row goes on one space deeper.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WIDTH = 120
HEAD = ("note", "source", "date")


def files() -> list[Path]:
    """Every data file that is shipped."""
    found = [*ROOT.glob("src/**/*.json*"), *ROOT.glob("backends/**/*.json*")]
    return sorted(path for path in found if path.suffix in {".json", ".jsonl"})


def form(path: Path) -> str:
    """How the file should read."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        rows = map(json.loads, text.splitlines())
        return "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    table = json.loads(text)
    if not isinstance(table, dict):
        raise SystemExit(f"{path}: a data file is an object whose first keys are {', '.join(HEAD)}")
    head = {key: table[key] for key in HEAD if key in table}
    items = [f"{_text(key)}: {_laid(value, 1, len(key) + 4)}" for key, value in {**head, **table}.items()]
    return "{\n " + ",\n ".join(items) + "\n}\n"


def bare(name: str, content: bytes) -> bytes:
    """A file as the wheel has it: a table without its blanks and the note at its head."""
    if not name.endswith((".json", ".jsonl")):
        return content
    head, end, rows = content.partition(b"\n") if name.endswith(".jsonl") else (content, b"", b"")
    kept = {key: value for key, value in json.loads(head).items() if key != "note"}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode() + end + rows


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _laid(value: Any, depth: int, before: int = 0) -> str:
    flat = _text(value)
    if not isinstance(value, dict | list) or not value or depth + before + len(flat) < WIDTH:
        return flat
    inner = list(value.values()) if isinstance(value, dict) else value
    if isinstance(value, dict):
        items = [f"{_text(key)}: {_laid(item, depth + 1, len(key) + 4)}" for key, item in value.items()]
    else:
        items = [_laid(item, depth + 1) for item in inner]
    rows = all(isinstance(item, dict | list) for item in inner)
    lines = items if rows else _packed(items, depth + 1)
    left, right = "{}" if isinstance(value, dict) else "[]"
    space = "\n" + " " * (depth + 1)
    return f"{left}{space}{f',{space}'.join(lines)}\n{' ' * depth}{right}"


def _packed(items: list[str], depth: int) -> list[str]:
    lines: list[str] = []
    for item in items:
        if lines and "\n" not in lines[-1] + item and depth + len(lines[-1]) + 2 + len(item) < WIDTH:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines


def main(words: list[str]) -> int:
    """Say or write."""
    named = [Path(word) for word in words if not word.startswith("-")] or files()
    other = [path for path in named if form(path) != path.read_text(encoding="utf-8")]
    for path in other:
        if "--write" in words:
            path.write_text(form(path), encoding="utf-8")
        print(f"{path}: {'written' if '--write' in words else 'another form; python tools/data.py --write'}")
    return 0 if "--write" in words else min(len(other), 1)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
