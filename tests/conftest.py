"""What a plain `pytest` leaves out and says so: slow tests (--slow), and an engine's (--engine NAME).

`sampled(N)`: a plain `pytest` takes N of a test's cases, evenly spread; the others are slow.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

# No clock decides here: an example may take as long as a busy machine makes it. `CI=1` asks the same examples
# again, so that what was judged can be repeated; without it every run draws others.
settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)  # fmt: skip
settings.load_profile("unhurried")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True, scope="session")
def _own_configuration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the calibration of the machine that it runs on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMSERVE_CONFIG_DIR", str(tmp_path_factory.mktemp("config")))
        yield


if sys.platform == "emscripten":

    def _no_processes(*_words: object, **_options: object) -> None:
        pytest.skip("Python under WebAssembly starts no processes")

    subprocess.Popen.__init__ = _no_processes


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow, too")
    parser.addoption("--engine", help="run only the tests marked for this engine, in its environment")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """An engine's tests stand in files that mark them: the others need not be read."""
    if not config.getoption("--engine") or collection_path.suffix != ".py":
        return None
    marks = "mark.engine(" in collection_path.read_text(encoding="utf-8")
    return None if marks else True  # None: whoever else has a say


def _engine_of(item: pytest.Item) -> str | None:
    mark = item.get_closest_marker("engine")
    return mark.args[0] if mark else None


def _sample(items: list[pytest.Item]) -> None:
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for every in cases.values():
        (count,) = every[0].get_closest_marker("sampled").args  # type: ignore[union-attr]
        taken = {len(every) * number // count for number in range(count)}
        for place, item in enumerate(every):
            if place not in taken:
                item.add_marker("slow")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _sample(items)
    wanted = config.getoption("--engine")
    if wanted:
        _keep(config, items, [item for item in items if _engine_of(item) == wanted])
        return
    if not config.getoption("--slow") and not config.getoption("-m"):
        _keep(config, items, [item for item in items if not item.get_closest_marker("slow")])
    for item in items:
        if engine := _engine_of(item):
            reason = f"needs the {engine} environment: tests/engines/run {engine}"
            item.add_marker(pytest.mark.skip(reason=reason))


def _keep(config: pytest.Config, items: list[pytest.Item], kept: list[pytest.Item]) -> None:
    left_out = set(items) - set(kept)
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = kept
