"""The conformance suite against a middle and a new model."""

from __future__ import annotations

import pytest
from run_conformance import conformance


@pytest.mark.slow
@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-sonnet-5"])
def test_the_conformance_suite_passes(model, claude, tmp_path):
    counts = conformance(tmp_path, "anthropic", model, base_url=claude.origin, api_key=claude.key)
    assert counts["passed"] > 50
