"""Tests marked engine("NAME") run only in that engine's environment, chosen by --engine NAME."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", help="run only the tests marked for this engine, in its environment")


def _engine_of(item: pytest.Item) -> str | None:
    mark = item.get_closest_marker("engine")
    return mark.args[0] if mark else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--engine")
    if wanted:
        config.hook.pytest_deselected(items=[item for item in items if _engine_of(item) != wanted])
        items[:] = [item for item in items if _engine_of(item) == wanted]
        return
    for item in items:
        if engine := _engine_of(item):
            reason = f"needs the {engine} environment: tests/engines/run {engine}"
            item.add_marker(pytest.mark.skip(reason=reason))
