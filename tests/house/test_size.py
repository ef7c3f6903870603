"""Rooms stay small enough to understand: files within 400 lines, functions within a screen."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "backends").rglob("*.py")])


def _function_lengths() -> list[tuple[int, str]]:
    lengths = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                name = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                lengths.append((node.end_lineno - node.lineno + 1, name))
    return lengths


def test_no_file_over_400_lines() -> None:
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


def test_functions_fit_on_a_screen() -> None:
    lengths = sorted(_function_lengths(), reverse=True)
    assert median(n for n, _ in lengths) <= 12
    over = [row for row in lengths if row[0] > 45]
    assert len(over) <= 0.05 * len(lengths), over
    assert lengths[0][0] <= 70, lengths[:5]
