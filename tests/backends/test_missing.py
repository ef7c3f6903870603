"""Every local backend says what it can without its engine, and names what is missing in one line."""

from __future__ import annotations

import pytest

import memserve
from memserve.errors import BackendMissing, Unsupported

LOCAL = ("ascend", "hf", "llamacpp", "lmdeploy", "mindie", "sglang", "vllm", "embedded")


@pytest.mark.parametrize("backend", LOCAL)
def test_capabilities_need_no_engine(backend: str) -> None:
    assert memserve.registry.find(backend).capabilities.backend == backend


@pytest.mark.parametrize("backend", ["ascend", "lmdeploy"])
def test_a_missing_engine_names_the_install_line(backend: str) -> None:
    with pytest.raises(BackendMissing, match=rf"memserve\[{backend}\]"):
        memserve.generator("some/model", backend=backend)


def test_ascend_names_the_lowest_missing_piece() -> None:
    with pytest.raises(BackendMissing, match="CANN"):
        memserve.generator("some/model", backend="ascend")


def test_mindie_says_how_to_reach_its_server() -> None:
    with pytest.raises(Unsupported, match="dialect='mindie'"):
        memserve.generator("some/model", backend="mindie")
