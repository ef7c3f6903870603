"""Every data file is of one kind, and each kind has a JSON Schema in schemas/."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

jsonschema = pytest.importorskip("jsonschema", reason="the extra test has it: engines' environments do not")
ROOT = Path(__file__).parents[2]
SCHEMAS = {
    path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob("schemas/*.json"))
}
DATA = sorted(
    str(path.relative_to(ROOT))
    for root in ("src", "backends")
    for path in (ROOT / root).rglob("*.json*")
    if path.suffix in {".json", ".jsonl"}
)


def kinds(file: str) -> list[str]:
    """The schemas that are meant for a file."""
    return [
        name for name, schema in SCHEMAS.items() if any(fnmatch(file, form) for form in schema["x-files"])
    ]


def documents(file: str) -> list[Any]:
    """What is to be valid: the whole file, or each line after the head."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()[1:]] if file.endswith("l") else [json.loads(text)]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    assert any(name in kinds(file) for file in DATA), "no file is of this kind"


@pytest.mark.parametrize("file", DATA)
def test_a_file_is_of_one_kind_and_valid(file: str) -> None:
    found = kinds(file)
    assert len(found) == 1, "one schema in schemas/ names this file in x-files"
    validator = jsonschema.Draft202012Validator(SCHEMAS[found[0]])
    wrong = [
        f"{list(error.path)}: {error.message}"
        for row in documents(file)
        for error in validator.iter_errors(row)
    ]
    assert wrong == [], f"schemas/{found[0]}"


@pytest.mark.parametrize("file", DATA)
def test_a_misspelled_key_is_refused(file: str) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMAS[kinds(file)[0]])
    assert not validator.is_valid({**documents(file)[0], "soruce": 1})
