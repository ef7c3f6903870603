"""The conformance suite against two families of models."""

from __future__ import annotations

import pytest
from fake_bedrock import BEARER
from run_conformance import conformance


@pytest.mark.slow
@pytest.mark.parametrize("model", ["amazon.nova-lite-v1:0", "us.anthropic.claude-haiku-4-5-20251001-v1:0"])
def test_the_conformance_suite_passes(model, bedrock, tmp_path):
    counts = conformance(
        tmp_path, "bedrock", model, base_url=bedrock.origin, api_key=BEARER, region="us-east-1"
    )
    assert counts["passed"] > 50
