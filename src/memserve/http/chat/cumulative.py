"""Tells servers that repeat the whole text in every chunk from those that send what is new."""

from memserve.http.body import bad

_TELLING = 4
"""Two chunks alone prove repetition only where the first has this many characters."""


class Unfolder:
    """Feed it chunks; it gives what is new in each.

    Undecided, it holds a chunk back that begins with all the text so far: the next chunk decides.
    """

    def __init__(self) -> None:
        self._text = ""
        self._held = ""
        self._mode: str | None = None

    def feed(self, piece: str) -> str:
        """The new text of a chunk, or "" while it is held back."""
        if not piece or self._mode == "plain":
            return piece
        if self._mode == "whole":
            return self._grown(piece)
        if not self._text:
            self._text = piece
            return piece
        return self._third(piece) if self._held else self._second(piece)

    def finish(self) -> str:
        """What was held back when the stream ended."""
        held, self._held = self._held, ""
        repeats = held.replace(self._text, "") == "" if held else False
        if held and not repeats and len(self._text) >= _TELLING:
            return held[len(self._text) :]
        return held

    def _second(self, piece: str) -> str:
        if len(piece) > len(self._text) and piece.startswith(self._text):
            self._held = piece
            return ""
        self._mode = "plain"
        return piece

    def _third(self, piece: str) -> str:
        held, self._held = self._held, ""
        if piece.startswith(held):
            self._mode = "whole"
            return self._grown(piece)
        self._mode = "plain"
        return held + piece

    def _grown(self, piece: str) -> str:
        if not piece.startswith(self._text):
            raise bad("the chunks of the stream contradict each other")
        new = piece[len(self._text) :]
        self._text = piece
        return new
