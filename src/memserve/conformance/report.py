"""What was judged and how it went: one JSON object, and a few lines for people."""

import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import memserve
from memserve.conformance.asking import known_tests
from memserve.protocol import Capabilities

_EVERY_SECONDS = 2.0
CAPABILITIES: pytest.StashKey[dict[str, Capabilities]] = pytest.StashKey()


class Report:
    """Collects outcomes while the suite runs."""

    def __init__(self) -> None:
        self.results: dict[str, dict[str, Any]] = {}
        self.config: pytest.Config | None = None
        self.path: Path | None = None
        self.written = 0.0

    def pytest_configure(self, config: pytest.Config) -> None:
        """Keep the config, where the fixtures leave the capabilities that they saw."""
        self.config = config
        asked = config.getoption("--conformance-report")
        self.path = Path(asked).absolute() if asked else None
        config.stash[CAPABILITIES] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One row a test; a failure in set-up or tear-down is a failure."""
        row = self.results.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0, "reason": ""})
        row["seconds"] = round(row["seconds"] + report.duration, 3)
        if hasattr(report, "wasxfail"):
            row["outcome"] = "expected failure" if report.skipped else "unexpected pass"
            row["reason"] = report.wasxfail
        elif report.failed:
            row.update(outcome="failed", reason=str(report.longrepr).strip().splitlines()[-1][:300])
        elif report.skipped:
            skipped = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            row.update(outcome="skipped", reason=skipped.removeprefix("Skipped: "))
        if time.monotonic() - self.written > _EVERY_SECONDS:
            self.write(complete=False)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the report however the run ended: passed, failed or interrupted."""
        self.write(complete=int(exitstatus) in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED))

    def write(self, *, complete: bool) -> None:
        """The file as it stands, whole at any moment: a run that is killed leaves what it had found."""
        if self.path is None:
            return
        self.written = time.monotonic()
        beside = self.path.with_name(f".{self.path.name}.part")
        text = json.dumps({**self.as_dict(), "complete": complete}, indent=1)
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(self.path)

    def as_dict(self) -> dict[str, Any]:
        """The report."""
        assert self.config is not None
        seen = self.config.stash[CAPABILITIES]
        first = next(iter(seen.values()), None)
        ran = {_test(nodeid) for nodeid in self.results}
        return {
            "schema": 1,
            "backend": self.config.getoption("--backend"),
            "model": Path(str(self.config.getoption("--model") or "")).name or None,
            "engine": first.engine if first else None,
            "device": first.device if first else None,
            "memserve": memserve.__version__,
            "python": sys.version.split()[0],
            "missing": sorted(known_tests() - ran),
            "totals": dict(Counter(row["outcome"] for row in self.results.values())),
            "capabilities": {task: _plain(asdict(caps)) for task, caps in seen.items()},
            "results": [
                {"group": _group(nodeid), "test": nodeid.rpartition("::")[2], **row}
                for nodeid, row in self.results.items()
            ],
        }

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what was judged, and whether anything was left out."""
        whole = self.as_dict()
        terminalreporter.section("memserve conformance")
        terminalreporter.line(
            f"{whole['backend']}: {whole['engine']} on {whole['device']}, {whole['totals']}"
        )
        if whole["missing"]:
            terminalreporter.line(f"NOT A FULL RUN: {len(whole['missing'])} tests were left out")
        if self.path:
            terminalreporter.line(f"report: {self.path}")


def _test(nodeid: str) -> str:
    path, _, name = nodeid.rpartition("::")
    return f"{Path(path).name}::{name.partition('[')[0]}"


def _group(nodeid: str) -> str:
    return Path(nodeid.partition("::")[0]).stem.removeprefix("test_")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, frozenset | tuple | list):
        return sorted(map(str, value)) if isinstance(value, frozenset) else [_plain(part) for part in value]
    return value
