"""The answer for a person: a coloured page on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from memserve.plan.report.sections import Section, of_answer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memserve.plan.answer import Answer


def show(answer: Answer, *, why: bool = False, everything: bool = False) -> None:
    """Print the answer."""
    render(of_answer(answer, why=why, everything=everything))


def render(sections: Iterable[Section]) -> None:
    """Print sections as the output asks for."""
    if sys.stdout.isatty():
        from memserve.plan.report.terminal import show as show_rich

        show_rich(sections)
    else:
        sys.stdout.write(plain(sections))


def plain(sections: Iterable[Section]) -> str:
    """Sections as plain text."""
    return "\n\n".join("\n".join(_lines(section)) for section in sections) + "\n"


def _lines(section: Section) -> Iterable[str]:
    if section.title:
        yield section.title
    for row in _aligned(section) if section.rows else ():
        yield f"  {row}" if section.title else row
    for line in section.lines:
        yield f"  - {line}" if section.bullets else f"  {line}"


def _aligned(section: Section) -> Iterable[str]:
    rows = [section.header, *section.rows] if section.header else list(section.rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()
