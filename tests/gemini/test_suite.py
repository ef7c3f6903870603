"""The conformance suite, for generation and for embeddings."""

from __future__ import annotations

import pytest
from run_conformance import conformance


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "task", "least"), [("gemini-2.5-flash", "generate", 70), ("gemini-embedding-001", "embed", 10)]
)
def test_the_conformance_suite_passes(model, task, least, gemini, tmp_path):
    counts = conformance(
        tmp_path, "gemini", model, "--task", task, base_url=gemini.origin, api_key=gemini.key
    )
    assert counts["passed"] >= least
