"""How an answer looks, as text at a width, in colours, as HTML, as JSON; what every answer can do."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from memserve.errors import printable

if TYPE_CHECKING:
    from argparse import Namespace

    from rich.text import Text


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
    signs = "".join(part[0] * min(CELLS, round(CELLS * size / max(1, total))) for part, size in parts.items())
    return "[" + signs[:CELLS].ljust(CELLS, ".") + "]"


def is_bar(line: str) -> bool:
    """Whether a line was made by `bar`."""
    return len(line) == CELLS + 2 and line[0] + line[-1] == "[]"


INDENT = "  "
DEEPER = "      "
NARROWEST = 40


def write(sections: Iterable[Section]) -> None:
    """Print sections: coloured and wrapped on a terminal, plain in a pipe."""
    if sys.stdout.isatty():
        print_sections(sections)
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


def print_sections(sections: Iterable[Section]) -> None:
    """Print sections with colours; long commands run on, so that they are copied whole."""
    from rich.console import Console

    console = Console(highlight=False)
    for number, section in enumerate(sections):
        if number:
            console.print()
        for kind, line in lines(section, console.width):
            console.print(styled(kind, line, section), soft_wrap=True)


def styled(kind: str, line: str, section: Section) -> Text:
    """A line in the colours of what it is."""
    from rich.text import Text

    if kind == "bar":
        return _bar(line.strip())
    if kind == "title":
        return Text(line, style=STYLES[section.style])
    found = Text(line, style=KINDS.get(kind, ""))
    for part in section.legend:
        found.highlight_words([part], COLOURS[part[0]])
    return found


def _bar(line: str) -> Text:
    from rich.text import Text

    found = Text(INDENT)
    for sign in line[1:-1]:
        found.append("█" if sign != "." else "░", style=COLOURS.get(sign, ""))
    return found


HTML_COLOURS = {"w": "#4c72b0", "k": "#55a868", "a": "#ccb974", "n": "#8172b2", "g": "#64b5cd",
                "o": "#c44e52", "l": "#8c8c8c", "b": "#937860", ".": "#e6e6e6"}  # fmt: skip
HTML_STYLES = {"good": ' style="color:#2e7d32"', "bad": ' style="color:#c62828"', "": ""}


def html(sections: Iterable[Section]) -> str:
    """Sections one below the other."""
    return "<div>" + "".join(part for section in sections for part in _html_parts(section)) + "</div>"


def _html_parts(section: Section) -> Iterator[str]:
    if section.title:
        yield f"<p{HTML_STYLES[section.style]}><b>{escape(section.title)}</b></p>"
    if section.rows:
        rows = "".join(_html_row(row, "td") for row in section.rows)
        yield f"<table>{_html_row(section.header, 'th') if section.header else ''}{rows}</table>"
    for line in section.lines:
        if is_bar(line):
            yield _html_bar(line)
        elif section.as_is:
            yield f'<pre style="white-space:pre-wrap">{escape(line)}</pre>'
        else:
            yield f"<p>{'• ' if section.bullets else ''}{_html_text(line, section.legend)}</p>"


def _html_row(row: Row, tag: str) -> str:
    return (
        "<tr>" + "".join(f'<{tag} style="text-align:left">{escape(cell)}</{tag}>' for cell in row) + "</tr>"
    )


def _html_text(line: str, legend: Iterable[str]) -> str:
    """Escaped, with the parts of a bar marked in its colours."""
    found = escape(line)
    for part in legend:
        found = found.replace(part, f'<span style="color:{HTML_COLOURS[part[0]]}">■</span> {part}', 1)
    return found


def _html_bar(line: str) -> str:
    shares = ((sign, len(list(signs))) for sign, signs in groupby(line[1:-1]))
    cells = "".join(
        f'<span style="background:{HTML_COLOURS[sign]};padding:0 {5 * share}px"></span>'
        for sign, share in shares
    )
    return f'<div style="line-height:1em" aria-hidden="true">{cells}</div>'


WIDTH = 100


class Shown:
    """A value that a person may look at: `str` is a page, `repr` a line, notebooks get tables."""

    @property
    def fits(self) -> bool:
        """Whether what was asked can be had."""
        raise NotImplementedError

    def sections(self, *, why: bool = False, everything: bool = False) -> Iterable[Section]:
        """The page, the most important first; `why` adds every rejection, `everything` what else fits."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The value as JSON has it."""
        raise NotImplementedError

    def __str__(self) -> str:

        return text(self.sections(), WIDTH).rstrip("\n")

    def __repr__(self) -> str:
        headline = next(iter(self.sections())).title
        return f"<{type(self).__name__}: {headline[:160]}>"

    def _repr_html_(self) -> str:

        return html(self.sections())


def show(value: Shown, options: Namespace) -> int:
    """Print the value; 0 if what was asked can be had."""
    if options.json:
        write_json(value.to_dict())
    else:
        write(value.sections(why=getattr(options, "why", False), everything=getattr(options, "all", False)))
    return 0 if value.fits else 1


def write_json(answer: dict[str, Any]) -> None:
    """One object on stdout."""
    import json

    sys.stdout.write(json.dumps(answer, ensure_ascii=False, allow_nan=False) + "\n")
