"""What a method is calibrated on and what it is judged on: never the same text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memserve.errors import InvalidInput

SHIPPED = "text.txt"
JUDGED = 5
"""Of one's own text every fifth paragraph is judged on, and not calibrated on."""
LEAST = 40
"""Characters of a paragraph that counts."""


@dataclass(frozen=True)
class Text:
    """Two texts and where they come from."""

    file: str
    calibration_file: str
    calibration: str
    judged: str

    sha256: str
    """Of the file."""

    def to_dict(self) -> dict[str, Any]:
        """Both, by file and hash."""
        return {
            "file": self.file, "sha256": self.sha256, "judged_sha256": _sha256(self.judged),
            "calibration_file": self.calibration_file,
            "calibration_sha256": _sha256(self.calibration),
        }  # fmt: skip


def read(path: str | None) -> Text:
    """One's own file, or a run's requests; else Python's manual to calibrate, a shipped text to judge."""
    if path is None:
        judged = (Path(__file__).parent / SHIPPED).read_text(encoding="utf-8")
        manual = "Python's manual (pydoc_data.topics)"
        return Text("memserve/compress/text.txt", manual, "\n\n".join(_manual()), judged, _sha256(judged))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the text {path}: {str(error)[:120]}") from error
    parts = list(_of_requests(text, path)) if path.endswith(".jsonl") else _paragraphs(text)
    if len(parts) < JUDGED:
        raise InvalidInput(f"{path} has {len(parts)} paragraphs, {JUDGED} are the least",
                           hint="an empty line ends a paragraph; in .jsonl each line is one")  # fmt: skip
    every = parts[::JUDGED]
    rest = [part for at, part in enumerate(parts) if at % JUDGED]
    return Text(path, path, "\n\n".join(rest), "\n\n".join(every), _sha256(text))


def questions(path: str | None) -> list[dict[str, Any]]:
    """One's own task: lines with `prompt` and `expected`, words that a right answer holds."""
    if path is None:
        return []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        return [{"prompt": one["prompt"], "expected": one["expected"],
                 "max_tokens": int(one.get("max_tokens", 64))} for one in rows]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"cannot read {path}: {str(error)[:120]}",
                           hint='each line: {"prompt": ..., "expected": ...}') from error  # fmt: skip


def _manual() -> list[str]:
    """The topics of Python's own manual, which lies on every machine, in an order that mixes them."""
    from pydoc_data.topics import topics

    parts = [part for text in topics.values() for part in _paragraphs(text)]
    return sorted(parts, key=_sha256)


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if len(part.strip()) >= LEAST]


def _of_requests(text: str, path: str) -> Iterator[str]:
    """What is asked and answered, line by line, in the forms that memserve run reads and writes."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            row = {**row, **row["body"]} if "body" in row else row
            said = [row.get("prompt") or row.get("messages"), row.get("text")]
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidInput(f"{path} line {number} is no request: {str(error)[:80]}") from error
        whole = "\n".join(filter(None, map(_words, said)))
        if whole:
            yield whole


def _words(said: Any) -> str:
    if isinstance(said, list):
        return "\n".join(_words(one.get("content") if isinstance(one, dict) else one) for one in said)
    return said if isinstance(said, str) else ""


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
