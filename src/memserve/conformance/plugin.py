"""Options, expectations and the report; silent unless `memserve.conformance` is on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

_NAME = "memserve.conformance"
_HOME = Path(__file__).parent
_NOT_TO_RUN = ("--ignore", "--deselect", "--cov", "--confcutdir", "--rootdir", "-k", "-m", "-p", "-c")


def _asked_for(args: Sequence[str]) -> bool:
    """Whether the suite, or a part of it, is among what is to be run, by its name or by its path."""
    before = ("", *args)
    return any(
        _means_us(arg) and not previous.startswith(_NOT_TO_RUN)
        for previous, arg in zip(before, args, strict=False)
    )


def _means_us(arg: str) -> bool:
    name = arg.partition("::")[0]
    if name == _NAME or name.startswith(f"{_NAME}."):
        return True
    if arg.startswith("-") or "conformance" not in name:
        return False
    path = Path(name).absolute().resolve()
    return path == _HOME.resolve() or _HOME.resolve() in path.parents


def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser,
                                  args: list[str]) -> None:  # fmt: skip
    """Register the options before the command line is parsed for good, and only when this suite is meant."""
    if not _asked_for([*map(str, early_config.invocation_params.args), *args]):
        return
    from memserve.conformance import asking, report

    report.add_options(parser)
    early_config.pluginmanager.register(asking.Expectations(), "memserve-expectations")
    early_config.pluginmanager.register(report.Report(), "memserve-report")
