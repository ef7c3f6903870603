"""Tests that can fail, and only for what they are about: no clock decides, none ends in silence."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FOLDERS = ("tests", "examples", "src/memserve/conformance")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time", "time"}
parse = cache(ast.parse)
"""Three tests walk the same files."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def own(function: ast.AST) -> Iterator[ast.AST]:
    """What stands in this function itself, and not in one inside it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, Function | ast.Lambda):
            yield from own(child)


def reads_a_clock(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or node.args:
        return False
    called = node.func
    return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)) in CLOCKS


def signs(node: ast.AST, durations: set[str], sign: int = 1) -> set[int]:
    """Whether a clock makes this larger (1) or smaller (-1) as time passes."""
    if reads_a_clock(node) or (isinstance(node, ast.Name) and node.id in durations):
        return {sign}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        return signs(node.left, durations, sign) | signs(node.right, durations, -sign)
    return set().union(*(signs(child, durations, sign) for child in ast.iter_child_nodes(node)))


def taken(value: ast.AST) -> bool:
    """Whether this is a time that passed: a clock less what it said before."""
    parts = (part for part in ast.walk(value) if isinstance(part, ast.BinOp))
    return any(isinstance(part.op, ast.Sub) and 1 in signs(part.left, set()) for part in parts)


def durations(function: Function) -> set[str]:
    """Names that hold, or collect, the time that something took."""
    found = set()
    for node in own(function):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and taken(node.value):
            places = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {place.id for place in places if isinstance(place, ast.Name)}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "append":
            kept = node.func.value
            found |= {kept.id} if isinstance(kept, ast.Name) and any(map(taken, node.args)) else set()
    return found


def refutable(compared: ast.Compare, known: set[str]) -> bool:
    """Whether this comparison turns false on a machine that is slow enough."""
    sides = [compared.left, *compared.comparators]
    for left, kind, right in zip(sides, compared.ops, sides[1:], strict=False):
        before, after = signs(left, known), signs(right, known)
        if isinstance(kind, ast.Lt | ast.LtE) and (1 in before or -1 in after):
            return True
        if isinstance(kind, ast.Gt | ast.GtE) and (-1 in before or 1 in after):
            return True
        if isinstance(kind, ast.Eq) and before | after:
            return True
    return False


def decided_by_a_clock(source: str) -> list[int]:
    """Lines of the assertions that a busy machine can turn false."""
    lines = []
    for function in functions(parse(source)):
        known = durations(function)
        for node in own(function):
            inside = ast.walk(node.test) if isinstance(node, ast.Assert) else ()
            if any(isinstance(part, ast.Compare) and refutable(part, known) for part in inside):
                lines.append(node.lineno)
    return lines


def silent_ends(source: str) -> list[int]:
    """Lines where a test function leaves without a word."""
    tests = (function for function in functions(parse(source)) if function.name.startswith("test_"))
    return [
        node.lineno for test in tests for node in own(test) if isinstance(node, ast.Return) and not node.value
    ]


def skips_without_a_cause(source: str) -> list[int]:
    """Lines that skip where a library is missing and do not say what installs it: support/missing.py does."""
    calls = (node for node in ast.walk(parse(source)) if isinstance(node, ast.Call))
    missing = (call for call in calls if getattr(call.func, "attr", "") == "importorskip")
    return [call.lineno for call in missing if "reason" not in {word.arg for word in call.keywords}]


@pytest.mark.parametrize("told", [decided_by_a_clock, silent_ends, skips_without_a_cause])
def test_no_test_does(told) -> None:
    found = {str(path.relative_to(ROOT)): told(path.read_text(encoding="utf-8")) for path in FILES}
    assert len(found) > 200
    assert {name: lines for name, lines in found.items() if lines} == {}


CLOCKED = """
def test_it():
    began, kept = time.monotonic(), []
    took = time.perf_counter() - began
    kept.append(process_time() - began)
    {line}
"""


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("assert time.monotonic() - began < 2", True),
        ("assert 2 > time.monotonic() - began", True),
        ("assert took < 2", True),
        ("assert min(kept) / 100 < 2", True),
        ("assert 1 < took < 2", True),
        ("assert 290 < error.retry_at - time.time()", True),
        ("assert answer.at == time.time()", True),
        ("assert took > 0.3", False),
        ("assert began + 300 <= error.retry_at <= time.time() + 300", False),
        ("assert cpu(plan) < 14 * cpu(empty)", False),
    ],
)
def test_what_counts_as_decided_by_a_clock(line, refused) -> None:
    assert bool(decided_by_a_clock(CLOCKED.format(line=line))) == refused


def test_what_counts_as_a_silent_end() -> None:
    assert silent_ends("def test_it():\n    if not found:\n        return\n    assert found") == [3]
    assert silent_ends("def test_it():\n    def inner():\n        return\n    assert inner") == []
