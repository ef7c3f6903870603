"""Sections on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from memserve.plan.report.sections import Section

COLOURS = {"w": "blue", "k": "green", "a": "yellow", "n": "magenta", "g": "cyan", ".": "bright_black"}
STYLES = {"good": "bold green", "bad": "bold red", "": "bold"}


def show(sections: Iterable[Section]) -> None:
    """Print sections with colours; the first is the headline."""
    console = Console()
    for number, section in enumerate(sections):
        if number == 0:
            style = STYLES[section.style]
            console.print(Panel(Text(section.title, style=style), border_style=style, expand=False))
            continue
        if section.title:
            console.print(Text(section.title, style=STYLES[section.style]))
        for part in _parts(section):
            console.print(Padding(part, (0, 0, 0, 2)))
        console.print()


def _parts(section: Section) -> Iterable[RenderableType]:
    if section.rows:
        yield _table(section)
    for line in section.lines:
        yield _bar(line) if line.startswith("[") and line.endswith("]") else _line(line, section)


def _table(section: Section) -> Table:
    table = Table(box=None, show_header=bool(section.header), header_style="bold", pad_edge=False)
    for column in range(len(section.rows[0])):
        table.add_column(section.header[column] if section.header else "", overflow="fold")
    for row in section.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _line(line: str, section: Section) -> Text:
    return Text(f"• {line}") if section.bullets else Text(line, style="cyan")


def _bar(line: str) -> Text:
    bar = Text()
    for sign in line[1:-1]:
        bar.append("█" if sign != "." else "░", style=COLOURS.get(sign, ""))
    return bar
