"""The table of releases against what each release's own source says (benchmarks/regimes.py --write)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from regimes import KEPT, ON_NPU, said, told, told_on_npus
from regimes_sglang import KEPT as ON_SGLANG
from regimes_sglang import differing
from released import released

from memserve_vllm import backend

READ, SGLANG, NPU = (json.loads(file.read_text(encoding="utf-8")) for file in (KEPT, ON_SGLANG, ON_NPU))
LEAST = 20


@pytest.mark.parametrize("release", READ)
def test_the_table_says_what_the_release_says(release: str) -> None:
    assert told(release, READ[release]) == READ[release]


@pytest.mark.parametrize("release", SGLANG)
def test_sglangs_shares_chunks_and_batches_are_the_releases_own(release: str) -> None:
    assert list(differing(release, SGLANG[release])) == []


@pytest.mark.parametrize("release", NPU)
def test_the_table_says_what_the_release_for_npus_says(release: str) -> None:
    assert told_on_npus(release) == NPU[release]


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
