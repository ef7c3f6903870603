"""What is tested: a backend and a model; and what the tests found, as a report."""

from __future__ import annotations

import ast
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

import memserve
from memserve.conformance.asking import known_tests
from memserve.protocol import Capabilities, Task


def add_options(parser: pytest.Parser) -> None:
    """The suite's own command line."""
    group = parser.getgroup("memserve conformance")
    group.addoption("--backend", help="the backend to judge, by its entry point's name")
    group.addoption("--model", help="a folder, a hub id, or the name that a server knows")
    group.addoption("--options", nargs="+", action="extend", default=[], metavar="K=V",
                    help="passed on to memserve.generator and memserve.embedder")  # fmt: skip
    group.addoption("--task", choices=("generate", "embed", "rerank"), action="append",
                    help="judge only this; default: what the model is for")  # fmt: skip
    group.addoption("--reference", metavar="BACKEND:MODEL",
                    help="where the same model answers, too: is this deployment the model?")  # fmt: skip
    group.addoption("--conformance-report", metavar="FILE", help="write the report as JSON")


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _options(words: list[str]) -> dict[str, Any]:
    bad = [word for word in words if "=" not in word]
    if bad:
        raise pytest.UsageError(f"--options takes K=V, not {bad[0]!r}")
    return {key: _value(value) for key, _, value in (word.partition("=") for word in words)}


@dataclass(frozen=True)
class Target:
    """The command line's answer to: what is to be judged?"""

    backend: str | None
    model: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    asked: tuple[Task, ...] = ()
    compared: str | None = None

    @classmethod
    def from_config(cls, config: pytest.Config) -> Target:
        """Read the options; a missing backend is a usage error."""
        backend = config.getoption("--backend")
        if not backend:
            raise pytest.UsageError(
                f"--backend NAME is needed; installed: {', '.join(memserve.registry.names())}"
            )
        return cls(
            backend, config.getoption("--model"), _options(config.getoption("--options")),
            tuple(config.getoption("--task") or ()), config.getoption("--reference"),
        )  # fmt: skip

    @property
    def folder(self) -> Path | None:
        """The checkpoint's folder, where the model is one."""
        path = Path(self.model) if self.model else None
        return path if path and path.is_dir() else None

    def generator(self, **more: Any) -> Any:
        """Open a generator; the name is looked up at each call, as a user's own code does."""
        return memserve.generator(self.model, backend=self.backend, **{**self.options, **more})

    def reference(self) -> Any:
        """Open what the generator is compared with; None where nothing is named."""
        if self.compared is None:
            return None
        backend, _, model = self.compared.partition(":")
        return memserve.generator(model or None, backend=backend)

    def embedder(self, **more: Any) -> Any:
        """Open an embedder."""
        return memserve.embedder(self.model, backend=self.backend, **{**self.options, **more})

    def reranker(self, **more: Any) -> Any:
        """Open a reranker."""
        return memserve.reranker(self.model, backend=self.backend, **{**self.options, **more})

    def tasks(self) -> tuple[Task, ...]:
        """What to judge: what was asked for, else what the model is for, else all that the backend does."""
        able: Capabilities = memserve.registry.find(str(self.backend)).capabilities
        if self.asked:
            return self.asked
        if self.folder and (purpose := purpose_of(self.folder)):
            return (purpose,)
        if self.model and "generate" in able.tasks:
            return ("generate",)
        return tuple(sorted(able.tasks))


def purpose_of(folder: Path) -> Task | None:
    """What a checkpoint is for, by its own files; None where they do not say."""
    if (folder / "modules.json").exists() or (folder / "1_Pooling").is_dir():
        return "embed"
    config = folder / "config.json"
    if not config.exists():
        return None
    names = json.loads(config.read_text(encoding="utf-8")).get("architectures") or []
    name = names[0] if names else ""
    if name.endswith("SequenceClassification"):
        return "rerank"
    generates = name.endswith(("CausalLM", "LMHeadModel", "ConditionalGeneration"))
    return None if not name else "generate" if generates else "embed"


def prompts_of(folder: Path) -> dict[str, str]:
    """The prompts for roles that a checkpoint's own files name."""
    config = folder / "config_sentence_transformers.json"
    if not config.exists():
        return {}
    return dict(json.loads(config.read_text(encoding="utf-8")).get("prompts") or {})


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
