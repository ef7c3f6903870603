"""What the engines' conformance reports say, after tests/engines/run has written them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("MEMSERVE_REPORTS") or Path(__file__).with_name("reports"))
REPORTS = sorted(FOLDER.glob("*.json"))
PART = ("-tools.json", "-part.json")
"""Reports of some groups alone: thinking and tools on a tiny model that talks; what real weights decide."""
WHOLE = [one for one in REPORTS if not one.name.endswith(PART)]


pytestmark = pytest.mark.skipif(not REPORTS, reason="no engine has reported yet: tests/engines/run")


@pytest.fixture(params=WHOLE or [FOLDER], ids=lambda path: path.stem)
def whole(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text(encoding="utf-8"))


@pytest.fixture(params=REPORTS or [FOLDER], ids=lambda path: path.stem)
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text(encoding="utf-8"))


def test_the_whole_suite_was_run(whole: dict[str, Any]) -> None:
    assert whole["complete"]
    left_out = {name for name in whole["missing"] if "lifecycle" not in name}
    assert left_out == set()


def test_nothing_failed_and_something_passed(report: dict[str, Any]) -> None:
    bad = [row["test"] for row in report["results"] if row["outcome"] in ("failed", "unexpected pass")]
    assert bad == []
    assert report["totals"]["passed"] >= 15


def test_every_skip_names_a_capability(report: dict[str, Any]) -> None:
    skipped = [row["reason"] for row in report["results"] if row["outcome"] == "skipped"]
    assert [reason for reason in skipped if not reason.startswith("capability ")] == []


def test_engines_of_ours_tell_each_token_of_a_score(report: dict[str, Any]) -> None:
    silent = [
        row["test"] for row in report["results"] if "single tokens are not told" in (row["reason"] or "")
    ]
    assert silent == []
