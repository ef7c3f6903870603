"""The suite itself: silent unless asked for, strict about expectations, honest about what was left out."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memserve.conformance.asking import known_tests
from memserve.protocol import Capabilities

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "examples" / "plugin" / "checkpoint"
ALL = ["--task", "generate", "--task", "embed", "--task", "rerank"]


def _pytest(
    *words: str, cwd: Path, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    world = None if path is None else {"PYTHONPATH": str(path), "PATH": "/usr/bin:/bin", **variables}
    return subprocess.run(
        command, cwd=cwd, env=world, capture_output=True, text=True, timeout=600, check=False
    )


def _suite(
    *words: str, cwd: Path, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    command = ("--pyargs", "memserve.conformance", "--backend", "toy", *words)
    return _pytest(*command, cwd=cwd, path=path, **variables)


def _named(report: Path) -> list[str]:
    """The reasons of all skips, each proven to name a capability."""
    rows = json.loads(report.read_text())["results"]
    skipped = [row["reason"] for row in rows if row["outcome"] == "skipped"]
    fields = {field.name for field in dataclasses.fields(Capabilities)}
    named = [re.match(r"capability (\w+):", reason) for reason in skipped]
    assert all(match and match[1] in fields for match in named), skipped
    return skipped


@pytest.mark.slow
def test_the_toy_passes_and_skips_name_capabilities(tmp_path: Path) -> None:
    done = _suite("--model", str(CHECKPOINT), *ALL, "--conformance-report", "r.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    report = json.loads((tmp_path / "r.json").read_text())
    assert _named(tmp_path / "r.json")
    assert report["missing"] == []
    assert report["capabilities"]["generate"]["engine"] == "toy 1.0"


CHARACTERS = re.findall(r'^    "(\w+)": {', (Path(__file__).parent / "unusual.py").read_text(), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("character", CHARACTERS)
def test_a_right_backend_never_fails_however_unusual(tmp_path: Path, character: str) -> None:
    """With the checkpoint beside it, except where its template would be another."""
    model = [] if character == "no_system_role" else ["--model", str(CHECKPOINT)]
    words = ["-p", "unusual", *model, *ALL, "--conformance-report", "r.json"]
    done = _suite(*words, cwd=tmp_path, path=Path(__file__).parent, MEMSERVE_UNUSUAL=character)
    assert done.returncode == 0, done.stdout[-3000:]
    _named(tmp_path / "r.json")


def test_the_suite_is_large_enough() -> None:
    assert len(known_tests()) >= 60
    assert len({name.partition("::")[0] for name in known_tests()}) >= 18


@pytest.mark.slow
def test_nothing_is_registered_in_other_peoples_suites(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("def pytest_addoption(parser): parser.addoption('--model')\n")
    (tmp_path / "test_own.py").write_text(
        "def test_own(request): assert request.config.option.model == 'm'\n"
    )
    done = _pytest("--model", "m", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "memserve conformance" not in done.stdout


@pytest.mark.slow
def test_a_run_without_a_backend_says_what_is_installed(tmp_path: Path) -> None:
    done = _pytest("--pyargs", "memserve.conformance", "-x", cwd=tmp_path)
    assert done.returncode != 0
    assert "--backend NAME is needed" in done.stdout + done.stderr


def test_a_backend_that_nobody_knows_is_one_line(tmp_path: Path) -> None:
    done = _pytest("--pyargs", "memserve.conformance", "--backend", "nosuch", cwd=tmp_path)
    assert done.returncode == 4
    assert "unknown backend 'nosuch'" in done.stderr
    assert "Error" not in done.stdout


TAKES_OUT = """
def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if "stop" not in item.name]
"""
EXCUSES = """
import pytest
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items[3].add_marker(pytest.mark.skip(reason="hard"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("conftest", "done_to_them"), [(TAKES_OUT, "taken out"), (EXCUSES, "excused")])
def test_no_conftest_takes_a_test_out_or_excuses_it(tmp_path: Path, conftest: str, done_to_them: str) -> None:
    (tmp_path / "conftest.py").write_text(conftest)
    done = _suite(cwd=tmp_path)
    assert done.returncode == 4
    assert f"a conftest or plug-in has {done_to_them}" in done.stderr


FAILS = """
def pytest_runtest_setup(item):
    if item.name == "test_no_pairs_no_scores":
        raise ENDING
"""


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "complete"), [("ValueError", True), ("KeyboardInterrupt", False)])
def test_the_report_is_written_however_the_run_ends(tmp_path: Path, ending: str, complete: bool) -> None:
    (tmp_path / "ends.py").write_text(FAILS.replace("ENDING", ending))
    words = ("-p", "ends", "-k", "test_score", "--no-summary", "--conformance-report", "r.json")
    assert _suite(*words, cwd=tmp_path, path=tmp_path).returncode in (1, 2)
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["complete"] is complete
    assert report["totals"]["passed"] >= 5
    assert report["missing"]


@pytest.mark.slow
def test_a_whole_package_is_collected_without_the_suite(tmp_path: Path) -> None:
    done = _pytest("--pyargs", "memserve", "--collect-only", "-q", cwd=tmp_path)
    assert "no tests collected" in done.stdout
    assert "rror" not in done.stdout


@pytest.mark.slow
def test_leaving_the_suite_out_is_not_asking_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("def test_own(): pass\n")
    suite = ROOT / "src" / "memserve" / "conformance"
    done = _pytest("test_own.py", "--ignore", str(suite), cwd=tmp_path)
    assert done.returncode == 0
    assert "memserve conformance" not in done.stdout


@pytest.mark.slow
def test_malformed_options_are_refused(tmp_path: Path) -> None:
    done = _suite("--options", "dtype", cwd=tmp_path)
    assert "--options takes K=V, not 'dtype'" in done.stdout + done.stderr


@pytest.mark.slow
def test_a_part_of_the_suite_is_called_a_part(tmp_path: Path) -> None:
    done = _suite("-k", "test_greedy_repeats", cwd=tmp_path)
    assert done.returncode == 0
    assert "NOT A FULL RUN" in done.stdout


def _with_expectations(folder: Path, rows: list[dict[str, str]]) -> None:
    """A copy of the toy package, found before the installed one, with an expectations file."""
    shutil.copytree(ROOT / "examples" / "plugin" / "memserve_toy", folder / "memserve_toy")
    (folder / "memserve_toy" / "conformance.json").write_text(json.dumps({"rows": rows}))


@pytest.mark.slow
def test_an_expected_failure_that_passes_turns_red(tmp_path: Path) -> None:
    row = {"test": "test_sampling.py::test_greedy_repeats", "status": "notyet", "reason": "a claim"}
    _with_expectations(tmp_path, [row])
    done = _suite("-k", "test_greedy_repeats", cwd=tmp_path, path=tmp_path)
    assert done.returncode == 1
    assert "[XPASS(strict)] notyet: a claim" in done.stdout


@pytest.mark.slow
def test_an_expectation_for_no_test_is_refused(tmp_path: Path) -> None:
    row = {"test": "test_sampling.py::test_gone", "status": "never", "reason": "none"}
    _with_expectations(tmp_path, [row])
    done = _suite(cwd=tmp_path, path=tmp_path)
    assert "names a test that does not exist" in done.stdout + done.stderr


@pytest.mark.slow
def test_an_expectation_needs_a_reason(tmp_path: Path) -> None:
    row = {"test": "test_sampling.py::test_greedy_repeats", "status": "later"}
    _with_expectations(tmp_path, [row])
    done = _suite(cwd=tmp_path, path=tmp_path)
    assert "each row needs test, reason and a status" in done.stdout + done.stderr
