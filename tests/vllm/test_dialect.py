"""The rows of dialect.json are what each release calls it: asked of the releases themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from released import released

from memserve_vllm.starting import release, spelling

SCRIPT = Path(__file__).parents[1] / "support" / "vllm_spellings.py"


@pytest.mark.engine("vllm")
@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.19.1", "0.23.0", "0.33.0"])
def test_a_release_knows_its_own_spellings(version: str) -> None:
    path = released("vllm", version, "gguf==0.18.0")
    world = {**os.environ, "PYTHONPATH": str(path), "VLLM_LOGGING_LEVEL": "ERROR"}
    rows = {kind: spelling(kind, version) for kind in ("structured", "pooling")}
    words = [sys.executable, "-W", "ignore", str(SCRIPT), json.dumps(rows)]
    done = subprocess.run(words, capture_output=True, text=True, env=world, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told.pop("version") == version
    assert told == {"structured": True, "pooling": True}


@pytest.mark.parametrize(
    ("version", "field", "arguments"),
    [("0.33.0", "structured_outputs", {"runner": "pooling", "convert": "embed"}),
     ("0.32.0+cpu", "structured_outputs", {"runner": "pooling", "convert": "embed"}),
     ("0.19.1", "structured_outputs", {"runner": "pooling", "convert": "embed"}),
     ("0.11.0rc1", "structured_outputs", {"task": "embed"}),
     ("0.10.2", "guided_decoding", {"task": "embed"}), ("0.6.4.post1", "guided_decoding", {"task": "embed"}),
     ("0.2.0", "guided_decoding", {"task": "embed"})],
)  # fmt: skip
def test_rows_hold_from_their_release_on(version: str, field: str, arguments: dict[str, str]) -> None:
    assert spelling("structured", version)["field"] == field
    assert spelling("pooling", version)["arguments"] == arguments


def test_releases_compare_as_numbers() -> None:
    assert release("0.9.2") < release("0.11.0") < release("0.19.1+cu128") < release("0.33.0.dev3")
