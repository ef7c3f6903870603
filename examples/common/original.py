"""Prompts out of a user's own checkout of a benchmark: its literals are read, none of its code is run."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path


class OtherLayoutError(SystemExit):
    """The checkout has no such prompt where it is looked for."""


def commit(folder: Path) -> str:
    """What is checked out, for the report."""
    words = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no git checkout"


def assigned(file: Path, name: str) -> list[str]:
    """Every literal that a file assigns to a name, in the order of the file."""
    return [text for named, text in _assignments(file) if named == name]


def holding(file: Path, *parts: str) -> str:
    """The one literal that holds all these words."""
    found = [text for text in _literals(file) if all(part in text for part in parts)]
    if not found:
        raise OtherLayoutError(f"{file}: no text there holds {parts}: is it another version?")
    return found[0]


def nth(file: Path, name: str, place: int, fields: int) -> str:
    """One of the literals assigned to a name, proven to have so many places to fill."""
    found = assigned(file, name)
    if place >= len(found) or found[place].count("{}") != fields:
        raise OtherLayoutError(f"{file}: {name} is not what it was in the version that was read for this")
    return found[place]


def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError) as error:
        raise OtherLayoutError(f"--original: {file} cannot be read ({error})") from error


def _assignments(file: Path) -> Iterator[tuple[str, str]]:
    nodes = [node for node in ast.walk(_tree(file)) if isinstance(node, ast.Assign)]
    for node in sorted(nodes, key=lambda node: node.lineno):
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value.value


def _literals(file: Path) -> list[str]:
    nodes = [node for node in ast.walk(_tree(file)) if isinstance(node, ast.Constant)]
    nodes.sort(key=lambda node: (node.lineno, node.col_offset))
    return [node.value for node in nodes if isinstance(node.value, str)]
