"""Options, expectations and the report; silent unless `memserve.conformance` is on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def _asked_for(args: list[str]) -> bool:
    return any("memserve.conformance" in arg or "memserve/conformance" in arg for arg in args)


def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> None:
    """Register the options before the command line is parsed for good, and only when this suite is meant."""
    if not _asked_for(list(map(str, early_config.invocation_params.args)) + args):
        return
    from memserve.conformance import expectations, report, target

    target.add_options(parser)
    early_config.pluginmanager.register(expectations.Expectations(), "memserve-expectations")
    early_config.pluginmanager.register(report.Report(), "memserve-report")
