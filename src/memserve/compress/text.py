"""What a method is calibrated on and what it is judged on: never the same paragraphs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memserve import files
from memserve.errors import InvalidInput

JUDGED = 5
"""Every fifth paragraph is judged on, and not calibrated on."""
LEAST = 40
"""Characters of a paragraph that counts."""
MANUAL = "Python's manual (pydoc_data.topics)"


@dataclass(frozen=True)
class Text:
    """A text in two parts."""

    file: str
    calibration: str
    judged: str
    sha256: str
    """Of the whole text."""

    def to_dict(self) -> dict[str, Any]:
        """Where it comes from, by file and hash."""
        return {"file": self.file, "sha256": self.sha256, "judged_sha256": sha256(self.judged)}


def read(path: str | None) -> Text:
    """One's own file or a run's requests; else the manual that lies beside every Python: no hub is needed."""
    text, file = (_manual(), MANUAL) if path is None else (_content(path), path)
    parts = [*(_of_requests(text, file) if file.endswith(".jsonl") else _paragraphs(text))]
    if len(parts) < JUDGED and not file.endswith(".jsonl"):
        parts = _paragraphs(text, "\n")
    if path is None:
        parts.sort(key=sha256)  # an order that mixes its topics
    if len(parts) < JUDGED:
        raise InvalidInput(f"{file} has {len(parts)} paragraphs, {JUDGED} are the least",
                           hint="an empty line ends a paragraph; in .jsonl each line is one, its prompt,"
                                " messages or text")  # fmt: skip
    rest = "\n\n".join(part for at, part in enumerate(parts) if at % JUDGED)
    return Text(file, rest, "\n\n".join(parts[::JUDGED]), sha256(text))


def questions(path: str | None) -> list[dict[str, Any]]:
    """A task of one's own: requests, each with what is `expected`: words that a right answer holds."""
    if path is None:
        return []
    lines = [line for line in _content(path).split("\n") if line.strip()]
    try:
        return [_question(files.parsed(line)) for line in lines] or _question({})
    except (LookupError, TypeError, ValueError, AttributeError):
        hint = 'each line: {"prompt": ..., "expected": "words" or ["any", "of these"]}'
        raise InvalidInput(f"{path} is no task", hint=hint) from None


def _question(row: Any) -> Any:
    """One line, in any form of a run's requests."""
    body, most = row.get("body", row), row.get("body", row).get("max_tokens") or 64
    prompt = body.get("prompt") or body["messages"]
    said = row["expected"] if "expected" in row else row["meta"]["expected"]
    expected = [str(one).strip() for one in (said if isinstance(said, list) else [said]) if one is not None]
    sound = isinstance(prompt, str) or all(isinstance(one, dict) for one in prompt)
    if not (sound and _words(prompt).strip() and expected and all(expected) and int(most) == most > 0):
        raise ValueError(row)
    return {"prompt": prompt, "expected": expected, "max_tokens": most}


def sha256(text: str) -> str:
    """The hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _manual() -> str:
    from pydoc_data.topics import topics

    return "\n\n".join(topics.values())


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {path}: {str(error)[:120]}") from error


def _paragraphs(text: str, end: str = "\n\n") -> list[str]:
    return [part.strip() for part in text.split(end) if len(part.strip()) >= LEAST]


def _of_requests(text: str, path: str) -> Iterator[str]:
    """What is asked and answered, line by line, in the forms that memserve run reads and writes."""
    for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
        try:
            row = files.parsed(line)
            row = row.get("body", row)
            whole = _words([row.get("prompt") or row.get("messages"), row.get("text")])
        except (ValueError, AttributeError) as error:
            raise InvalidInput(f"{path}, line {number} is no request: {str(error)[:80]}") from error
        if whole.strip():
            yield whole


def _words(said: Any) -> str:
    if isinstance(said, list):
        return "\n".join(filter(None, map(_words, said)))
    if isinstance(said, dict):
        return _words(said.get("content") or said.get("text"))
    return said if isinstance(said, str) else ""
