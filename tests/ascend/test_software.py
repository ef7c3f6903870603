"""What is missing under vLLM-Ascend is named, the lowest part first, with what helps."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import memserve
from memserve.errors import BackendMissing
from memserve_ascend import engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INSTALL = r"\[ascend\]"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with the driver, CANN, torch_npu and vllm_ascend, each in a place of its own."""
    (tmp_path / "davinci_manager").touch()
    (tmp_path / "cann" / "lib64").mkdir(parents=True)
    (tmp_path / "cann" / "lib64" / "libascendcl.so").touch()
    for name in ("torch_npu", "vllm_ascend"):
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").write_text("")
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = {*sys.modules}
    monkeypatch.setattr(engine, "DEVICE", tmp_path / "davinci_manager")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path / "cann"))
    monkeypatch.delenv("ASCEND_TOOLKIT_HOME", raising=False)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield tmp_path
    for name in {"torch_npu", "vllm_ascend"} & ({*sys.modules} - before):
        del sys.modules[name]


def _told() -> str:
    with pytest.raises(BackendMissing, match=INSTALL) as caught:
        memserve.generator("some/model", backend="ascend")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_is_missing_where_all_is_there(node: Path) -> None:
    engine.need()


def test_the_driver_is_named_first(node: Path) -> None:
    (node / "davinci_manager").unlink()
    assert "needs the NPU driver" in _told()


def test_then_cann_with_its_script(node: Path) -> None:
    (node / "cann" / "lib64" / "libascendcl.so").unlink()
    assert "needs CANN" in (said := _told())
    assert "set_env.sh" in said


def test_cann_may_be_on_the_library_path_alone(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASCEND_HOME_PATH")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere::{node / 'cann' / 'lib64'}")
    engine.need()


@pytest.mark.parametrize(("module", "word"), [("torch_npu", "torch_npu"), ("vllm_ascend", "vllm-ascend")])
def test_then_the_packages(node: Path, module: str, word: str) -> None:
    (node / "site" / module / "__init__.py").unlink()
    (node / "site" / module).rmdir()
    assert f"needs {word}, which is not installed" in _told()


@pytest.mark.parametrize(
    "line",
    ["raise ImportError('libhccl.so: cannot open shared object file: No such file or directory')",
     "raise OSError('undefined symbol: _ZN2at4_ops5zeros')", "raise RuntimeError('npu not found')"],
)  # fmt: skip
def test_a_torch_npu_that_does_not_load_says_why(node: Path, line: str) -> None:
    (node / "site" / "torch_npu" / "__init__.py").write_text(line)
    said = _told()
    assert "a torch_npu that loads" in said
    assert line.split("'")[1] in said
