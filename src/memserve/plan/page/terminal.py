"""Sections on a terminal: the lines of `text`, coloured, and none cut by the terminal's width."""

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from memserve.plan.page.section import Section
from memserve.plan.page.text import INDENT, lines

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
