"""One piece of an answer for a person: a title, rows of cells, lines of text."""

from typing import NamedTuple

Row = tuple[str, ...]
CELLS = 40
"""Characters of a bar."""


class Section(NamedTuple):
    """A title, rows of cells (under a header if there is one), and lines of text."""

    title: str = ""
    header: Row = ()
    rows: tuple[Row, ...] = ()
    lines: tuple[str, ...] = ()
    bullets: bool = True
    style: str = ""
    """good or bad: how a terminal colours the title."""
    as_is: bool = False
    """Lines are printed whole, however wide: commands to be pasted, charts."""
    legend: tuple[str, ...] = ()
    """What a bar's signs stand for, by their first letter: coloured like the bar."""


def bar(parts: dict[str, int], total: int) -> str:
    """The first letter of each part as often as its share of the total, dots for what is left."""
    signs = "".join(part[0] * round(CELLS * size / max(1, total)) for part, size in parts.items())
    return "[" + signs[:CELLS].ljust(CELLS, ".") + "]"


def is_bar(line: str) -> bool:
    """Whether a line was made by `bar`."""
    return len(line) == CELLS + 2 and line[0] + line[-1] == "[]"
