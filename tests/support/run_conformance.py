"""Runs the conformance suite against a backend, in a process of its own, as a user would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from memserve.protocol import Capabilities

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = {field.name for field in fields(Capabilities)}


def conformance(folder: Path, backend: str, model: str, *words: str, **options: Any) -> dict[str, int]:
    """How many tests passed and were skipped; fails where one failed or a skip names no capability."""
    given = [f"{name}={value}" for name, value in options.items()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--pyargs", "memserve.conformance",
         "--backend", backend, "--model", model, *words, "--conformance-report", "report.json",
         "--options", *given],
        cwd=folder, capture_output=True, text=True, timeout=540, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    results = json.loads((folder / "report.json").read_text())["results"]
    reasons = [row["reason"] for row in results if row["outcome"] == "skipped"]
    for reason in reasons:
        named = re.match(r"capability (\w+):", reason)
        assert named and named[1] in FIELDS | {"model"}, reason
    return {"passed": sum(row["outcome"] == "passed" for row in results), "skipped": len(reasons)}
