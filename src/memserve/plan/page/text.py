"""Sections as text: whole lines in a pipe, wrapped at words for a width; never a cut command or name."""

import sys
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.text import Text

from memserve.errors import printable
from memserve.plan.page.section import Row, Section, is_bar

INDENT = "  "
DEEPER = "      "
NARROWEST = 40


def write(sections: Iterable[Section]) -> None:
    """Print sections: coloured and wrapped on a terminal, plain in a pipe."""
    if sys.stdout.isatty():
        from memserve.plan.page.text import show

        show(sections)
    else:
        sys.stdout.write(text(sections))


def text(sections: Iterable[Section], width: int | None = None) -> str:
    """Sections as plain text; without a width every row and every line of text is one line."""
    blocks = ("\n".join(line for _, line in lines(section, width)) for section in sections)
    return "\n\n".join(blocks) + "\n"


def lines(section: Section, width: int | None) -> Iterator[tuple[str, str]]:
    """A section's lines, each with what it is: title, header, row, bar, as_is or text."""
    return ((kind, printable(line)) for kind, line in _lines(section, width))


def _lines(section: Section, width: int | None) -> Iterator[tuple[str, str]]:
    indent = INDENT if section.title else ""
    for line in _wrapped(section.title, width) if section.title else ():
        yield "title", line
    for kind, row in _table(section, width and max(NARROWEST, width) - len(indent)) if section.rows else ():
        yield kind, indent + row
    for line in section.lines:
        if section.as_is or is_bar(line):
            yield ("as_is" if section.as_is else "bar"), INDENT + line
        else:
            mark = "  - " if section.bullets else INDENT
            yield from (("text", part) for part in _wrapped(line, width, mark, " " * len(mark)))


def _wrapped(line: str, width: int | None, first: str = "", rest: str = "") -> Sequence[str]:
    """A line broken at blanks alone: names with dashes and slashes stay whole."""
    if width is None or len(first) + len(line) <= width:
        return (first + line,)
    from textwrap import wrap

    return wrap(line, max(NARROWEST, width), initial_indent=first, subsequent_indent=rest,
                break_long_words=False, break_on_hyphens=False)  # fmt: skip


def _table(section: Section, width: int | None) -> Iterator[tuple[str, str]]:
    """Aligned columns; those that a narrow page has no place for stand below their row, with their name."""
    rows = [section.header, *section.rows] if section.header else list(section.rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if not section.header:
        yield from (("row", line) for row in rows for line in _pair(row, widths, width))
        return
    kept = len(widths)
    while width is not None and kept > 1 and sum(widths[:kept]) + 2 * (kept - 1) > width:
        kept -= 1
    for number, row in enumerate(rows):
        yield "row" if number else "header", _aligned(row[:kept], widths)
        named = zip(section.header[kept:], row[kept:], strict=True) if number else ()
        below = "; ".join(f"{name}: {cell}" if name else cell for name, cell in named if cell.strip("-"))
        yield from (("row", part) for part in (_wrapped(below, width, DEEPER, DEEPER) if below else ()))


def _pair(row: Row, widths: Sequence[int], width: int | None) -> Sequence[str]:
    """A row without header: what follows the name is wrapped beside it."""
    if width is None or len(row) != 2:
        return (_aligned(row, widths),)
    return _wrapped(row[1], width, row[0].ljust(widths[0] + 2), " " * (widths[0] + 2))


def _aligned(row: Row, widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()


COLOURS = {"w": "blue", "k": "green", "a": "yellow", "n": "magenta", "g": "cyan", "o": "red",
           "l": "green", "b": "magenta", ".": "bright_black"}  # fmt: skip
STYLES = {"good": "bold green", "bad": "bold red", "": "bold"}
KINDS = {"header": "bold", "as_is": "cyan"}


def show(sections: Iterable[Section]) -> None:
    """Print sections with colours; long commands run on, so that they are copied whole."""
    console = Console(highlight=False)
    for number, section in enumerate(sections):
        if number:
            console.print()
        for kind, line in lines(section, console.width):
            console.print(styled(kind, line, section), soft_wrap=True)


def styled(kind: str, line: str, section: Section) -> Text:
    """A line in the colours of what it is."""
    if kind == "bar":
        return _bar(line.strip())
    if kind == "title":
        return Text(line, style=STYLES[section.style])
    found = Text(line, style=KINDS.get(kind, ""))
    for part in section.legend:
        found.highlight_words([part], COLOURS[part[0]])
    return found


def _bar(line: str) -> Text:
    found = Text(INDENT)
    for sign in line[1:-1]:
        found.append("█" if sign != "." else "░", style=COLOURS.get(sign, ""))
    return found
