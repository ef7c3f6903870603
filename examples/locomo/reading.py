"""What of a conversation the model reads: all of it from its end, or what was retrieved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from examples.locomo.data import Conversation

UNITS = ("dialog", "observation", "summary")


class Piece(NamedTuple):
    """One unit of retrieval, and the turns (D1:3) or the session (S1) that it stands for."""

    text: str
    date: str
    names: tuple[str, ...]

    @property
    def line(self) -> str:
        return f"{self.date}: {self.text}"


def pieces(talk: Conversation, unit: str) -> list[Piece]:
    """The conversation in units; empty where the data has no observations or summaries."""
    if unit == "dialog":
        return [Piece(turn.said, turn.date, (turn.id,)) for turn in talk.turns]
    if unit == "summary":
        return [Piece(text, date, (f"S{number}",)) for number, date, text in talk.summaries]
    return [Piece(text, date, names) for _, date, text, names in talk.observations]


def retrieved(found: Sequence[Piece], unit: str) -> str:
    """What was found, the best first."""
    return ("\n\n" if unit == "summary" else "\n").join(piece.line for piece in found)


def whole(talk: Conversation, most: int | None, count: Callable[[str], int]) -> str:
    """The latest turns that fit in so many tokens, under the dates of their sessions."""
    kept: list[str] = []
    left = most
    for date, turns in reversed([(date, list(held)) for date, held in groupby(talk.turns, lambda t: t.date)]):
        head = f"DATE: {date}\nCONVERSATION:\n"
        block: list[str] = []
        for turn in reversed(turns):
            if left is not None:
                left -= count(turn.said + "\n") + (0 if block else count(head))
                if left < 0:
                    break
            block.insert(0, turn.said)
        if block:
            kept.insert(0, head + "\n".join(block) + "\n\n")
        if left is not None and left < 0:
            break
    return "".join(kept)
