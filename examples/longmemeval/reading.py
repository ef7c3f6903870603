"""What of a history the model reads, and how it is written down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from examples.longmemeval.data import Instance, Turn
from examples.longmemeval.index import Document

from memserve.protocol import Generator

SPARE = 1000
"""Tokens left for the question and the template, as in the benchmark."""


@dataclass(frozen=True)
class Chunk:
    """A session, a round of it, or a note on one."""

    date: str
    content: Any


def whole(one: Instance, granularity: str, top: int, *, user_only: bool) -> list[Chunk]:
    """The latest of the history."""
    found = []
    for date, session in zip(one.session_dates, one.sessions, strict=True):
        turns = [_plain(turn) for turn in session if turn["role"] == "user" or not user_only]
        found += [Chunk(date, turns)] if granularity == "session" else [Chunk(date, [turn]) for turn in turns]
    return found[-top:]


def retrieved(one: Instance, found: Sequence[Document], top: int, *, user_only: bool) -> list[Chunk]:
    """The best of what was found; a user's turn comes with the answer that it got."""
    chunks = []
    for document in found[:top]:
        session = one.sessions[document.place]
        turns = session if document.turn is None else session[document.turn : document.turn + 2]
        kept = [_plain(turn) for turn in turns if turn["role"] == "user" or not user_only]
        chunks.append(Chunk(one.session_dates[document.place], kept))
    return chunks


def noted(chunks: Sequence[Chunk], notes: Sequence[str]) -> list[Chunk]:
    """Each chunk as the note that was written on it."""
    return [replace(chunk, content={"session_summary": note.strip()})
            for chunk, note in zip(chunks, notes, strict=True)]  # fmt: skip


def history(chunks: Sequence[Chunk], form: str, template: str) -> str:
    """The chunks in the order of their dates, as JSON or as plain text."""
    ordered = sorted(chunks, key=lambda chunk: chunk.date)
    return "".join(template.format(number, chunk.date, _written(chunk.content, form))
                   for number, chunk in enumerate(ordered, 1))  # fmt: skip


def cut(text: str, generator: Generator, answer: int) -> str:
    """The beginning that leaves space for prompt and answer, by the model's own tokens where it has them."""
    most = generator.capabilities.context
    if most is None or not generator.capabilities.tokenizer:
        return text
    ids = generator.encode(text)
    space = max(1, most - answer - SPARE) if most > answer + SPARE else most // 2
    return text if len(ids) <= space else generator.decode(ids[:space])


def _written(content: Any, form: str) -> str:
    if form == "json":
        return "\n" + json.dumps(content)
    if isinstance(content, dict):
        return "\n\n" + content["session_summary"]
    return "".join(f"\n\n{turn['role']}: {turn['content'].strip()}" for turn in content)


def _plain(turn: Turn) -> dict[str, Any]:
    return {"role": turn["role"], "content": turn["content"]}
