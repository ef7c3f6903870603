"""The site's own parts: the generated reference, the pages' places, the README's picture."""

from __future__ import annotations

import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import memserve

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _load(name: str) -> Any:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "docs"))
    return module


@pytest.fixture(scope="module")
def reference() -> Any:
    return _load("reference")


def test_the_reference_has_every_public_name(reference: Any) -> None:
    page = reference.api()
    for package in reference.packages():
        module = sys.modules[package]
        missing = [name for name in module.__all__ if f"### {name}\n" not in page]
        assert all(isinstance(getattr(module, name), type(sys)) for name in missing), missing


def test_every_public_call_has_its_sentence(reference: Any) -> None:
    silent = []
    for package in reference.packages():
        module = sys.modules[package]
        found = {name: getattr(module, name) for name in module.__all__}
        calls = {name: v for name, v in found.items() if inspect.isroutine(v) or inspect.isclass(v)}
        silent += [f"{package}.{name}" for name, value in calls.items() if not value.__doc__]
    assert silent == []


def test_errors_and_capabilities_are_whole(reference: Any) -> None:
    page = reference.errors_page()
    assert "`Unsupported`" in page
    assert page.count("\n| `") >= 20
    assert all(f"| `{name}` |" in reference.capabilities() for name in ("chat", "stream", "schema"))


def test_cards_and_prices_are_whole(reference: Any) -> None:
    assert reference.cards().count("\n| ") == len(memserve.hardware.cards()) + 2
    assert "gpt-4o-mini" in reference.prices()


def test_every_page_is_in_the_navigation() -> None:
    words = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    named = set(re.findall(r"[\w/.-]+\.md", str(yaml.safe_load(words)["nav"])))
    assert pages - named == set()


def test_the_picture_is_what_the_planner_prints() -> None:
    picture = _load("picture")
    kept = picture.words(picture.PICTURE.read_text(encoding="utf-8"))
    assert len(kept) > 40
    assert kept == picture.words(picture.drawn()), "python docs/picture.py"


@pytest.mark.slow
def test_readmes_table_of_planners_is_what_the_benchmark_prints() -> None:
    words = [sys.executable, str(ROOT / "benchmarks" / "memory.py")]
    printed = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300).stdout
    rows = re.findall(r"^\| ([\w-]+[\w. -]*) \| ([\d.]+ %) \| ([\d.]+ %|no figure) \|$", README, re.MULTILINE)
    assert len(rows) >= 5
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert [row for row in rows if " ".join(row) not in lines] == []


@pytest.mark.slow
def test_the_site_builds_and_no_link_is_dead(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="the extra docs has it")
    words = [sys.executable, str(ROOT / "docs" / "site.py"), str(tmp_path / "site")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = (tmp_path / "site" / "search.json").read_text(encoding="utf-8")
    assert "concurrency" in found
