"""The weights that a harness's own model and memserve both open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def weights() -> Path:
    """Made by tests/engines/weights.py, named by tests/engines/run."""
    return Path(os.environ["MEMSERVE_WEIGHTS"])
