"""The suite can fail: every wrong backend is caught, and every group catches one that no other catches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKPOINT = HERE.parents[1] / "examples" / "plugin" / "checkpoint"


def _registered() -> dict[str, str]:
    """Names and groups, read without patching this process."""
    lines = (HERE / "wrong.py").read_text(encoding="utf-8").splitlines()
    return {
        below.split()[1].partition("(")[0]: line.split('"')[1]
        for line, below in pairwise(lines)
        if line.startswith("@mutant(")
    }


MUTANTS = _registered()
SUITE = HERE.parents[1] / "src" / "memserve" / "conformance"
GROUPS = {path.stem.removeprefix("test_") for path in SUITE.glob("test_*.py")}


@cache
def _groups_that_fail(name: str) -> frozenset[str]:
    report = Path(tempfile.mkdtemp()) / "report.json"
    command = [
        sys.executable, "-m", "pytest", "--pyargs", "memserve.conformance", "-q",
        "-p", "wrong", "-p", "no:cacheprovider",
        "--backend", "toy", "--model", str(CHECKPOINT), "--options", "api_key=sk-toy-0123456789",
        "--task", "generate", "--task", "embed", "--task", "rerank", "--conformance-report", str(report),
    ]  # fmt: skip
    world = {
        **os.environ,
        "MEMSERVE_MUTANT": name,
        "PYTHONPATH": str(HERE),
        "MEMSERVE_HEAVY": str(HERE / "heavy"),
    }
    subprocess.run(command, env=world, cwd=report.parent, capture_output=True, timeout=120, check=False)
    results = json.loads(report.read_text(encoding="utf-8"))["results"]
    return frozenset(row["group"] for row in results if row["outcome"] == "failed")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_wrong_backend_is_caught_by_its_group(name: str) -> None:
    assert MUTANTS[name] in _groups_that_fail(name)


@pytest.mark.slow
@pytest.mark.parametrize("group", sorted(GROUPS))
def test_each_group_catches_one_that_no_other_catches(group: str) -> None:
    alone = [name for name in MUTANTS if _groups_that_fail(name) == {group}]
    assert alone, f"no wrong backend is caught by {group} alone"
