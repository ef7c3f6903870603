"""An environment is made from an install line once, and only from an install line."""

from __future__ import annotations

import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from memserve.engines import environment
from memserve.errors import EngineFailed, InvalidInput

if TYPE_CHECKING:
    from pathlib import Path


def _wheel(folder: Path) -> Path:
    """The smallest wheel there is, so that nothing is fetched."""
    path = folder / "feather-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("feather.py", "weight = 1\n")
        info = "feather-1.0.dist-info"
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: feather\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.slow
def test_it_is_made_once_and_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMSERVE_ENVIRONMENTS", str(tmp_path / "environments"))
    line, said = f"pip install {_wheel(tmp_path)}", []
    python = environment.make(line, report=said.append)
    words = [str(python), "-c", "import feather; print(feather.weight)"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "1\n"
    assert said
    said.clear()
    assert environment.make(line, report=said.append) == python
    assert said == []


@pytest.mark.slow
def test_one_that_was_interrupted_is_made_anew(tmp_path: Path) -> None:
    place = tmp_path / "half"
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").write_text("not a python")
    python = environment.make(f"pip install {_wheel(tmp_path)}", folder=place, report=lambda _: None)
    assert subprocess.run([str(python), "-c", "import feather"], check=True).returncode == 0


@pytest.mark.slow
def test_a_package_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="failed with exit code"):
        environment.make(f"pip install {tmp_path}/none-1.0-py3-none-any.whl", folder=tmp_path / "e",
                         report=lambda _: None)  # fmt: skip


@pytest.mark.parametrize("line", ["", "rm -rf /", "curl x | sh", "apt-get install vllm"])
def test_only_install_lines_are_run(line: str) -> None:
    with pytest.raises(InvalidInput, match="not an install line"):
        environment.requirements(line)
