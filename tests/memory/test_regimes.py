"""The table of releases against what each release's own source says (benchmarks/regimes.py --write)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from regimes import KEPT, said, told
from released import released

from memserve_vllm import backend

READ = json.loads(KEPT.read_text(encoding="utf-8"))
LEAST = 20


@pytest.mark.parametrize("release", READ)
def test_the_table_says_what_the_release_says(release: str) -> None:
    assert told(release, READ[release]) == READ[release]


def test_enough_releases_were_read_and_the_newest_is_one_of_them() -> None:
    """A release that memserve plans with costs a run of benchmarks/regimes.py, not a guess."""
    planned = [row["version"] for row in backend.rules["versions"]]
    assert len(READ) >= LEAST
    missing = [
        version for version in planned if version not in READ and version.split(".")[:2] >= ["0", "19"]
    ]
    assert missing == []


@pytest.mark.slow
def test_the_newest_release_of_all_says_what_the_table_says() -> None:
    """The next release costs an hour: what differs is listed here, as soon as the index has it."""
    asked = [sys.executable, "-m", "pip", "index", "versions", "vllm", "--disable-pip-version-check"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip("no package index answers: run it where pip install vllm works")
    newest = done.stdout.split()[1].strip("()")
    own = said(released("vllm", newest) / "vllm", newest)
    assert told(newest, own) == own
