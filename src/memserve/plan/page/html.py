"""Sections as HTML, for notebooks."""

from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby

from memserve.plan.page.section import Row, Section, is_bar

COLOURS = {"w": "#4c72b0", "k": "#55a868", "a": "#ccb974", "n": "#8172b2", "g": "#64b5cd", "o": "#c44e52",
           "l": "#8c8c8c", "b": "#937860", ".": "#e6e6e6"}  # fmt: skip
STYLES = {"good": ' style="color:#2e7d32"', "bad": ' style="color:#c62828"', "": ""}


def html(sections: Iterable[Section]) -> str:
    """Sections one below the other."""
    return "<div>" + "".join(part for section in sections for part in _parts(section)) + "</div>"


def _parts(section: Section) -> Iterator[str]:
    if section.title:
        yield f"<p{STYLES[section.style]}><b>{escape(section.title)}</b></p>"
    if section.rows:
        rows = "".join(_row(row, "td") for row in section.rows)
        yield f"<table>{_row(section.header, 'th') if section.header else ''}{rows}</table>"
    for line in section.lines:
        if is_bar(line):
            yield _bar(line)
        elif section.as_is:
            yield f'<pre style="white-space:pre-wrap">{escape(line)}</pre>'
        else:
            yield f"<p>{'• ' if section.bullets else ''}{_text(line, section.legend)}</p>"


def _row(row: Row, tag: str) -> str:
    return (
        "<tr>" + "".join(f'<{tag} style="text-align:left">{escape(cell)}</{tag}>' for cell in row) + "</tr>"
    )


def _text(line: str, legend: Iterable[str]) -> str:
    """Escaped, with the parts of a bar marked in its colours."""
    found = escape(line)
    for part in legend:
        found = found.replace(part, f'<span style="color:{COLOURS[part[0]]}">■</span> {part}', 1)
    return found


def _bar(line: str) -> str:
    shares = ((sign, len(list(signs))) for sign, signs in groupby(line[1:-1]))
    cells = "".join(
        f'<span style="background:{COLOURS[sign]};padding:0 {5 * share}px"></span>' for sign, share in shares
    )
    return f'<div style="line-height:1em">{cells}</div>'
