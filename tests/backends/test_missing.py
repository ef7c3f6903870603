"""Every local backend says what it can without its engine, and names what is missing in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import memserve
from memserve import registry
from memserve.errors import BackendMissing, Unsupported
from memserve.missing import install_line

LOCAL = ("ascend", "hf", "llamacpp", "lmdeploy", "mindie", "sglang", "vllm", "embedded")


@pytest.fixture
def forgetful() -> Iterator[None]:
    """What is installed is read again in this test, and again after it."""
    registry.forget()
    yield
    registry.forget()


@pytest.mark.parametrize("backend", LOCAL)
def test_capabilities_need_no_engine(backend: str) -> None:
    assert memserve.registry.find(backend).capabilities.backend == backend


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (None, 'pip install "memserve[hf]"'),
        ({"url": "file:///a%20b", "dir_info": {"editable": True}}, 'pip install -e "/a b[hf]"'),
        ({"url": "file:///a/b", "dir_info": {}}, 'pip install "/a/b[hf]"'),
        ({"url": "https://x/y.whl", "archive_info": {}}, 'pip install "memserve[hf] @ https://x/y.whl"'),
        ({"url": "https://x/y", "vcs_info": {"vcs": "git"}}, 'pip install "memserve[hf] @ git+https://x/y"'),
    ],
)
def test_an_extra_is_installed_from_where_memserve_came(
    origin: object, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "memserve-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: memserve\nVersion: 0\n", encoding="utf-8")
    if origin:
        (folder / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert install_line("hf") == line


@pytest.mark.parametrize("backend", ["ascend", "lmdeploy"])
def test_a_missing_engine_names_the_install_line(backend: str) -> None:
    with pytest.raises(BackendMissing, match=rf"\[{backend}\]"):
        memserve.generator("some/model", backend=backend)


def test_ascend_names_the_lowest_missing_piece() -> None:
    with pytest.raises(BackendMissing, match="CANN"):
        memserve.generator("some/model", backend="ascend")


def test_mindie_says_how_to_reach_its_server() -> None:
    with pytest.raises(Unsupported, match="dialect='mindie'"):
        memserve.generator("some/model", backend="mindie")
