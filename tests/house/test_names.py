"""The core names no engine and no provider: what is true of one stands in its backend's folder.

Counted are words in string literals and identifiers of `src/memserve`, and in keys and words of its data
files; docstrings, comments, help texts, sources and notes may give examples, because people need them.
"""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memserve import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src" / "memserve"
NO_NAMES = frozenset({"embedded", "generic", "memserve"})
"""An adjective, the default dialect, and our own: not names of engines."""
TEXTS = frozenset({"hint", "help", "description", "epilog", "metavar"})
"""Arguments that a person reads."""
DOCUMENTATION = frozenset({"note", "notes", "source", "sources", "says", "printed_by", "remedy"})
PACKAGES = "packages of others that importing memserve must not load, by the names that the contract has"
PROVIDERS = "prices are what a provider asks, by the provider's name"
MAKER = "a maker of cards is called as its backend is; only tables and readers of drivers know makers"
IDS = "a model is called by its id on the hub, with its maker's name"
HEAVY = ("vllm", "sglang", "lmdeploy", "openai")
PROVIDERS_NAMED = ("maas", "pangu", "anthropic", "openai", "gemini", "bedrock")
ALLOWED = {
    **{f"conformance/test_unsupported.py: {name}": PACKAGES for name in HEAVY},
    **{f"speed/data/prices.json: {name}": PROVIDERS for name in PROVIDERS_NAMED},
    **{
        f"{file}: ascend": MAKER
        for file in (
            "engines/environment.py",
            "engines/install.py",
            "hardware/catalogue.py",
            "hardware/data/cards.json",
            "hardware/detection/__init__.py",
            "hardware/detection/ascend.py",
            "hardware/detection/host.py",
            "hardware/detection/seen.py",
            "plan/networks.json",
            "serve/diagnoses.json",
        )
    },
    "model/data/quality.json: hf": IDS,
    "model/data/quality.json: openai": IDS,
    "model/stored/quantization.py: ascend": "a config.json's own word for a format",
}
"""FILE: NAME -> why it must stand there."""


@cache
def names() -> frozenset[str]:
    """Backends, their packages and the dialects that the HTTP client knows."""
    found = set(registry.names())
    for folder in (ROOT / "backends").iterdir():
        if folder.is_dir():
            found |= {folder.name, folder.name.removeprefix("memserve_")}
    table = json.loads((ROOT / "backends" / "memserve_openai" / "dialects.json").read_text("utf-8"))
    found |= {row["name"] for row in table["dialects"]}
    return frozenset(found - NO_NAMES)


def named(text: str) -> set[str]:
    """The names that a text holds as words."""
    text = re.sub(r"hf(?=\\?\.co|_)|(?<=[bt]-)hf\b", "", text.lower())  # the hub's: hf.co, HF_TOKEN, 7b-hf
    whole = set(re.findall(r"[a-z0-9_]+", text))
    parts = {part for word in whole for part in word.split("_")}
    return (whole | parts) & names()


def docstrings(tree: ast.AST) -> set[ast.AST]:
    """Strings that stand alone, and those that an argument of a person's text holds."""
    found: set[ast.AST] = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in TEXTS:
            found |= set(ast.walk(node.value))
    return found


def in_python(text: str) -> Iterator[str]:
    """Every name in the literals and identifiers of a module."""
    tree = ast.parse(text)
    left_out = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in left_out:
            yield from named(node.value)
        for part in ("id", "attr", "name", "arg", "module", "asname"):
            word = getattr(node, part, None)
            if isinstance(word, str):
                yield from named(word)


def in_data(value: Any) -> Iterator[str]:
    """Every name in the keys and the words of a table; sentences are documentation."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key not in DOCUMENTATION:
                yield from named(key)
                yield from in_data(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from in_data(inner)
    elif isinstance(value, str):
        yield from named(value)


@cache
def found() -> dict[str, int]:
    """FILE: NAME -> how often."""
    count: dict[str, int] = {}
    for path in sorted(CORE.rglob("*")):
        if path.suffix == ".py":
            words = list(in_python(path.read_text("utf-8")))
        elif path.suffix == ".json":
            words = list(in_data(json.loads(path.read_text("utf-8"))))
        else:
            continue
        for word in words:
            key = f"{path.relative_to(CORE)}: {word}"
            count[key] = count.get(key, 0) + 1
    return count


def test_the_core_names_no_engine() -> None:
    assert {key: number for key, number in found().items() if key not in ALLOWED} == {}


def test_what_is_allowed_is_there() -> None:
    assert set(ALLOWED) <= found().keys()


@pytest.mark.parametrize(
    "text",
    [
        "x = 'vllm'",
        "x = 'say vllm serve'",
        "import sglang",
        "memserve_hf = 1",
        "def ask_openai(): pass",
        "card.vendor == 'ascend'",
    ],
)
def test_a_name_is_found_where_it_counts(text: str) -> None:
    assert set(in_python(text))


@pytest.mark.parametrize("text", ["'''vllm'''", "parse(help='vllm')", "x = 'HF_TOKEN'"])
def test_texts_for_people_do_not_count(text: str) -> None:
    assert not set(in_python(text))
