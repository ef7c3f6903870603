"""What is searched: a document a session or turn, of what the user said, with its key expanded if wanted.

Names follow the benchmark's own files: `answer` in a name marks evidence, `noans` a session or turn of an
evidence session that does not hold the answer itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from examples.longmemeval.data import Instance, Turn

GRANULARITIES = ("session", "turn")
EXPANSIONS = ("session-summ", "session-keyphrase", "session-userfact", "turn-keyphrase", "turn-userfact")
JOINS = ("separate", "split-separate", "merge", "split-merge", "replace", "split-replace")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Document:
    """One key of the index. `place` is that of its session, `turn` that of its turn."""

    id: str
    text: str
    place: int
    turn: int | None = None


@dataclass(frozen=True)
class Expansion:
    """What a model wrote of each session or turn, read from a file of the benchmark's authors or your own."""

    kind: str
    join: str
    texts: Mapping[str, str | Sequence[str] | None]

    @classmethod
    def read(cls, kind: str, join: str, file: Path) -> Expansion:
        return cls(kind, join, json.loads(file.read_text(encoding="utf-8")))

    def of(self, name: str) -> list[str]:
        """The texts for a session or turn; one that failed is an empty text."""
        found = self.texts.get(name.replace("answer_", "").replace("noans_", ""))
        texts = [""] if found is None else [found] if isinstance(found, str) else [str(one) for one in found]
        if "split" not in self.join:
            return [" ".join(texts)] if texts else []
        if self.kind.endswith("keyphrase"):
            return [part.strip() for part in texts[0].split(";")]
        return _SENTENCE.split(texts[0]) if self.kind.endswith("summ") else texts


def documents(one: Instance, granularity: str, expansion: Expansion | None = None) -> list[Document]:
    """Every document of an instance, in the order of its history."""
    found = []
    for place, (name, session) in enumerate(zip(one.session_ids, one.sessions, strict=True)):
        found += (
            _of_session(name, place, session) if granularity == "session" else _turns(name, place, session)
        )
    return _expanded(one, found, expansion) if expansion else found


def _of_session(name: str, place: int, session: Sequence[Turn]) -> list[Document]:
    said = [turn for turn in session if turn["role"] == "user"]
    held = any(turn.get("has_answer") for turn in said)
    text = " ".join(turn["content"] for turn in said)
    return [Document(name if held or "answer" not in name else name.replace("answer", "noans"), text, place)]


def _turns(name: str, place: int, session: Sequence[Turn]) -> list[Document]:
    found = []
    for number, turn in enumerate(session):
        if turn["role"] == "user":
            own = f"{name}_{number + 1}"
            named = own if turn.get("has_answer") else own.replace("answer", "noans")
            found.append(Document(named, turn["content"], place, number))
    return found


def _expanded(one: Instance, found: list[Document], expansion: Expansion) -> list[Document]:
    for place, (name, session) in enumerate(zip(one.session_ids, one.sessions, strict=True)):
        if expansion.kind.startswith("session"):
            found = _joined(found, expansion, name, place, None)
            continue
        for number, turn in enumerate(session):
            if turn["role"] == "user":
                found = _joined(found, expansion, f"{name}_{number + 1}", place, number)
    return found


def _joined(
    found: list[Document], expansion: Expansion, name: str, place: int, turn: int | None
) -> list[Document]:
    """The expansions of one name as documents of their own, before its key, or in its place."""
    texts = expansion.of(name)
    if "separate" in expansion.join:
        return [*found, *(Document(name, text, place, turn) for text in texts)]
    merged = "merge" in expansion.join
    result = []
    for document in found:
        if document.id == name:
            new = [f"{text} {document.text}" if merged else text for text in texts]
            result += [replace(document, text=text) for text in new]
        else:
            result.append(document)
    return result
