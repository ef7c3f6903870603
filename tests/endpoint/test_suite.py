"""memserve's own suite over the endpoint: what a backend promises holds over the wire, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_conformance import conformance


@pytest.mark.slow
def test_the_suite_over_the_example(start, tmp_path):
    _, url, where = start("--backend", "toy", "--name", "toy")
    key = Path(where).read_text().strip()
    for task in ("generate", "embed", "rerank"):
        done = conformance(tmp_path, "openai", "toy", "--task", task, base_url=url, api_key=key)
        assert done["passed"] > {"generate": 200, "embed": 10, "rerank": 5}[task]


@pytest.mark.slow
def test_the_suite_over_responses(start, tmp_path):
    _, url, where = start("--backend", "toy", "--name", "toy")
    key = Path(where).read_text().strip()
    done = conformance(tmp_path, "openai", "toy", base_url=url, api_key=key, dialect="openai-responses")
    assert done["passed"] > 100


@pytest.mark.slow
@pytest.mark.engine("hf")
def test_the_suite_over_transformers(start, tmp_path, weights):
    _, url, where = start("--backend", "hf", "--model", str(weights / "tiny"), "--options", "dtype=float32")
    key = Path(where).read_text().strip()
    done = conformance(tmp_path, "openai", str(weights / "tiny"), base_url=url, api_key=key)
    assert done["passed"] > 250


@pytest.mark.slow
@pytest.mark.engine("embedded")
def test_the_suite_over_the_embedded_model(start, tmp_path):
    _, url, where = start("--backend", "embedded", "--name", "m")
    key = Path(where).read_text().strip()
    assert conformance(tmp_path, "openai", "m", "--task", "embed", base_url=url, api_key=key)["passed"] > 10
    words = (
        "--task",
        "generate",
        "-k",
        "stream or samples or logprobs or cancel",
    )  # all of it takes ten minutes
    assert conformance(tmp_path, "openai", "m", *words, base_url=url, api_key=key)["passed"] > 20
