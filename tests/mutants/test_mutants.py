"""The suite can fail: every wrong backend is caught, and every group catches one that no other catches."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKPOINT = HERE.parents[1] / "examples" / "plugin" / "checkpoint"


def _registered() -> dict[str, tuple[str, bool]]:
    """Names, groups and whether no other group may catch them, read without patching this process."""
    lines = [
        line
        for file in ("wrong.py", "subtle.py", "talking.py")
        for line in (HERE / file).read_text().splitlines()
    ]
    return {
        re.split(r"[( :]", below)[1]: (line.split('"')[1], "alone=True" in line)
        for line, below in pairwise(lines)
        if line.startswith("@mutant(")
    }


MUTANTS = _registered()
SUITE = HERE.parents[1] / "src" / "memserve" / "conformance"
GROUPS = {path.stem.removeprefix("test_") for path in SUITE.glob("test_*.py")}


def _groups_that_fail(name: str, part: str = "") -> frozenset[str]:
    report = Path(tempfile.mkdtemp()) / "report.json"
    command = [
        sys.executable, "-m", "pytest", "--pyargs", f"memserve.conformance{part}", "-q",
        "-p", "wrong", "-p", "no:cacheprovider",
        "--backend", "toy", "--model", str(CHECKPOINT), "--options", "api_key=sk-toy-0123456789",
        "--task", "generate", "--task", "embed", "--task", "rerank", "--conformance-report", str(report),
        "--reference", f"toy:{CHECKPOINT}",
    ]  # fmt: skip
    world = {
        **os.environ,
        "MEMSERVE_MUTANT": name,
        "PYTHONPATH": str(HERE),
        "MEMSERVE_HEAVY": str(HERE / "heavy"),
    }
    subprocess.run(command, env=world, cwd=report.parent, capture_output=True, timeout=600, check=False)
    results = json.loads(report.read_text(encoding="utf-8"))["results"]
    return frozenset(row["group"] for row in results if row["outcome"] == "failed")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_wrong_backend_is_caught_by_its_group(name: str) -> None:
    """Those that a group catches alone are shown to the whole suite, the others to their own group."""
    group, alone = MUTANTS[name]
    failed = _groups_that_fail(name, "" if alone else f".test_{group}")
    assert failed == {group}


def test_each_group_has_one_that_no_other_catches() -> None:
    assert {group for group, alone in MUTANTS.values() if alone} == GROUPS
