"""The table of releases against what each release's own source says (benchmarks/regimes.py --write)."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from regimes import KEPT, told

from memserve_vllm import backend

READ = json.loads(KEPT.read_text(encoding="utf-8"))
LEAST = 20


@pytest.mark.parametrize("release", READ)
def test_the_table_says_what_the_release_says(release: str) -> None:
    assert told(release, READ[release]["batch"]) == READ[release]


def test_enough_releases_were_read_and_the_newest_is_one_of_them() -> None:
    """A release that memserve plans with costs a run of benchmarks/regimes.py, not a guess."""
    planned = [row["version"] for row in backend.rules["versions"]]
    assert len(READ) >= LEAST
    missing = [
        version for version in planned if version not in READ and version.split(".")[:2] >= ["0", "19"]
    ]
    assert missing == []
