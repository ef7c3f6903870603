"""What a backend says of itself: tests that it is known to fail, with the reason, strictly.

`conformance.json` in the package that the entry point names:
    {"rows": [{"test": "test_stream.py::test_usage_comes_once", "status": "notyet", "reason": "..."}]}
notimpl: we have not; notyet: the engine has not; never: it cannot. A test that starts to pass turns red.
"""

import json
from collections.abc import Generator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

from memserve.errors import UnknownName
from memserve.registry import GROUP

_STATUSES = frozenset({"notimpl", "notyet", "never"})
_EXCUSES = frozenset({"skip", "skipif", "xfail"})
_HOME = Path(__file__).parent


def rows_of(backend: str) -> list[dict[str, str]]:
    """The rows of that backend's file, checked; none where it has no file."""
    entry = next((e for e in entry_points(group=GROUP) if e.name == backend), None)
    found = find_spec(entry.module) if entry else None
    if found is None or found.origin is None:
        return []
    path = Path(found.origin).parent / "conformance.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    for row in rows:
        if row.get("status") not in _STATUSES or not row.get("reason") or not row.get("test"):
            raise pytest.UsageError(
                f"{path}: each row needs test, reason and a status of {sorted(_STATUSES)}"
            )
    return [row for row in rows if row.get("backend", backend) == backend]


class Expectations:
    """Marks the tests that the backend's file names, and refuses names that match none."""

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """A backend that is not named, or that nobody knows, is one line and not one for every test."""
        from memserve.conformance.target import Target

        if session.config.option.collectonly:
            return
        try:
            Target.from_config(session.config).tasks()
        except UnknownName as error:
            raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(self, config: pytest.Config,
                                      items: list[pytest.Item]) -> Generator[None]:  # fmt: skip
        """A whole run must know every name in the file; a part of it only marks what it has."""
        collected = [item for item in items if _HOME in item.path.parents]
        yield
        _untouched(config, collected, items)
        self._mark(config, items)

    @staticmethod
    def _mark(config: pytest.Config, items: list[pytest.Item]) -> None:
        mine = {item: _name(item) for item in items if _HOME in item.path.parents}
        for row in rows_of(str(config.getoption("--backend"))):
            hits = [item for item, name in mine.items() if name in (row["test"], f"{row['test']}")]
            reason = f"{row['status']}: {row['reason']}"
            for item in hits:
                item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
            if not hits and row["test"] not in known_tests():
                raise pytest.UsageError(f"conformance.json names a test that does not exist: {row['test']}")


def _untouched(config: pytest.Config, collected: list[pytest.Item], items: list[pytest.Item]) -> None:
    """Nobody's conftest takes a test out or excuses it; a person on the command line may choose a part."""
    chosen = any(config.getoption(word, None) for word in ("-k", "-m", "--deselect", "--lf", "--sw", "--nf"))
    gone = [] if chosen else [item for item in collected if item not in items]
    excused = [item for item in collected if any(mark.name in _EXCUSES for mark in item.iter_markers())]
    for what, found in (("taken out", gone), ("excused", excused)):
        if found:
            raise pytest.UsageError(
                f"a conftest or plug-in has {what} {len(found)} tests, such as {_name(found[0])}: "
                "what a backend cannot do is said in its conformance.json"
            )


def _name(item: pytest.Item) -> str:
    return f"{item.path.name}::{item.originalname if isinstance(item, pytest.Function) else item.name}"


def known_tests() -> frozenset[str]:
    """Every test of the suite, read from its source, so that none can be left out unseen."""
    import ast

    return frozenset(
        f"{path.name}::{node.name}"
        for path in _HOME.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )
