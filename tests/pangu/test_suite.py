"""The conformance suite against both interfaces."""

from __future__ import annotations

import pytest
from fake_pangu import DEPLOYMENT, PROJECT
from run_conformance import conformance


@pytest.mark.slow
@pytest.mark.parametrize("api", ["v1", "v2"])
def test_the_conformance_suite_passes(api, pangu, tmp_path):
    counts = conformance(
        tmp_path, "pangu", "pangu-n1", api=api, base_url=pangu.origin, project_id=PROJECT,
        deployment_id=DEPLOYMENT, api_key=pangu.key,
    )  # fmt: skip
    assert counts["passed"] > 50
