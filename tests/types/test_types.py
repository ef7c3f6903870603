"""What memserve promises to type checkers: right calls pass, every wrong one is found on its line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
FILES = [str(HERE / "right.py"), str(HERE / "wrong.py")]
NUMBERED = re.compile(r"#\s*(\d+)$")
_ENOUGH = 25


def _numbered(name: str) -> dict[int, int]:
    """Line numbers of the numbered calls."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return {at: int(found[1]) for at, line in enumerate(lines, 1) if (found := NUMBERED.search(line))}


def _mypy() -> set[tuple[str, int]]:
    words = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", *FILES]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {
        (Path(found[1]).name, int(found[2]))
        for found in re.finditer(r"^(.+?):(\d+): error:", done.stdout, re.MULTILINE)
    }


def _pyright() -> set[tuple[str, int]]:
    words = ["pyright", "--outputjson", "--pythonpath", sys.executable, *FILES]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    if '"generalDiagnostics"' not in done.stdout:
        pytest.skip(f"pyright does not start here: {(done.stderr or done.stdout)[-200:]}")
    found = json.loads(done.stdout[done.stdout.index("{") :])["generalDiagnostics"]
    return {(Path(row["file"]).name, row["range"]["start"]["line"] + 1) for row in found}


def _judge(found: set[tuple[str, int]]) -> None:
    assert sorted(row for row in found if row[0] != "wrong.py") == [], "right calls that are refused"
    wrong = _numbered("wrong.py")
    missed = {number for line, number in wrong.items() if ("wrong.py", line) not in found}
    assert missed == set(), "wrong calls that pass"
    assert {line for name, line in found if name == "wrong.py"} <= set(wrong), "errors beside the calls"


def test_there_are_enough_of_both() -> None:
    for name in ("right.py", "wrong.py"):
        numbers = list(_numbered(name).values())
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= _ENOUGH


def test_mypy() -> None:
    _judge(_mypy())


@pytest.mark.skipif(
    shutil.which("pyright") is None, reason="pyright is not installed: pip install -e '.[dev]'"
)
def test_pyright() -> None:
    _judge(_pyright())
