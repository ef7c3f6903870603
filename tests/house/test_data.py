"""Facts are data: every file has one head, one layout, one form of dates, and every row names its source."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {"source", "sources", "card_source", "printed_by"}
# Choices of this project, not facts read somewhere; and the texts behind the short names of sources.
OWN = {"serves", "concessions", "base", "ports", "roles", "prompts", "extras", "classes", "sources"}
DATE = re.compile(r"20\d\d-[01]\d-[0-3]\d")


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("data_tool", ROOT / "tools" / "data.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()
FILES = [str(path.relative_to(ROOT)) for path in TOOL.files()]


def head_and_tables(file: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands before the rows, and the rows."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith("l"):
        head, *rows = map(json.loads, text.splitlines())
        return head, {"rows": rows}
    table = json.loads(text)
    head = {key: table.pop(key) for key in TOOL.HEAD if key in table}
    return head, table


def without_source(node: Any, path: str) -> list[str]:
    """The rows below a place that do not say where they are from."""
    if isinstance(node, dict) and SOURCES & node.keys():
        return []
    inner = node.items() if isinstance(node, dict) else enumerate(node)
    inner = list(inner)
    if isinstance(node, dict) and any(not isinstance(value, dict | list) for _, value in inner):
        return [path]
    tables = ((key, value) for key, value in inner if isinstance(value, dict | list) and value)
    return [row for key, value in tables for row in without_source(value, f"{path}/{key}")]


def dates(node: Any) -> list[Any]:
    """Every value that is named as a date."""
    if isinstance(node, list):
        return [found for item in node for found in dates(item)]
    if not isinstance(node, dict):
        return []
    here = [node[key] for key in ("date", "read") if key in node and not isinstance(node[key], dict | list)]
    return here + [found for value in node.values() for found in dates(value)]


def test_there_are_data_files() -> None:
    assert len(FILES) > 40


@pytest.mark.parametrize("file", FILES)
def test_a_file_has_the_one_head_and_form(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert text == TOOL.form(ROOT / file), "python tools/data.py --write"
    head, tables = head_and_tables(file)
    assert set(head) >= {"note", "date"}, "the first keys: note, source (or one in each row), date"
    assert not {"legend", "read"} & tables.keys()


@pytest.mark.parametrize("file", FILES)
def test_dates_have_one_form(file: str) -> None:
    head, tables = head_and_tables(file)
    assert [value for value in dates([head, tables]) if not DATE.fullmatch(str(value))] == []


ONE_SOURCE = {file for file in FILES if head_and_tables(file)[0].get("source")}


@pytest.mark.parametrize("file", sorted({*FILES} - ONE_SOURCE))
def test_every_row_has_a_source(file: str) -> None:
    if Path(file).name == "conformance.json":
        pytest.skip("what the suite may expect is a decision, not a fact from elsewhere")
    _, tables = head_and_tables(file)
    facts = {
        name: table for name, table in tables.items() if name not in OWN and isinstance(table, dict | list)
    }
    assert [row for name, table in facts.items() for row in without_source(table, name)] == []


def test_a_row_without_a_source_is_found() -> None:
    rows = {"a": {"value": 1}, "b": {"value": 2, "source": "a page"}, "c": [{"d": {"e": 1}}]}
    assert without_source(rows, "rows") == ["rows/a", "rows/c/0/d"]
