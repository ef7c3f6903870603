"""What the engines' conformance reports say, after tests/engines/run has written them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("MEMSERVE_REPORTS") or Path(__file__).with_name("reports"))
REPORTS = sorted(FOLDER.glob("*.json"))


pytestmark = pytest.mark.skipif(not REPORTS, reason="no engine has reported yet: tests/engines/run")


@pytest.fixture(params=REPORTS or [FOLDER], ids=lambda path: path.stem)
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text(encoding="utf-8"))


def test_the_whole_suite_was_run(report: dict[str, Any]) -> None:
    assert report["complete"]
    left_out = {name for name in report["missing"] if "lifecycle" not in name}
    assert left_out == set()


def test_nothing_failed_and_something_passed(report: dict[str, Any]) -> None:
    bad = [row["test"] for row in report["results"] if row["outcome"] in ("failed", "unexpected pass")]
    assert bad == []
    assert report["totals"]["passed"] >= 30


def test_every_skip_names_a_capability(report: dict[str, Any]) -> None:
    skipped = [row["reason"] for row in report["results"] if row["outcome"] == "skipped"]
    assert [reason for reason in skipped if not reason.startswith("capability ")] == []
