"""What is shipped is ours and can be read: no code from data, no blobs, a small wheel."""

from __future__ import annotations

import ast
import io
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = [ROOT / "src" / "memserve", *sorted((ROOT / "backends").glob("memserve_*"))]
SHIPPED = [
    path
    for package in PACKAGES
    for path in sorted(package.rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts
]
LARGEST_WHEEL = 900_000
LARGEST_BLOB = 64 * 1024
RUNS_TEXT = {"exec", "eval", "compile", "__import__"}


def _calls(path: Path) -> list[str]:
    """Calls of the built-in functions that run text; `re.compile` and the like are others."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    calls = (node for node in tree if isinstance(node, ast.Call) and isinstance(node.func, ast.Name))
    return [f"{path.relative_to(ROOT)}:{node.lineno}" for node in calls if node.func.id in RUNS_TEXT]


def test_no_text_is_run() -> None:
    sources = [path for path in SHIPPED if path.suffix == ".py"]
    assert len(sources) > 300
    assert [call for path in sources for call in _calls(path)] == []


def test_no_blob_is_shipped() -> None:
    large = [path for path in SHIPPED if path.stat().st_size > LARGEST_BLOB]
    assert [
        str(path.relative_to(ROOT)) for path in large if "\ufffd" in path.read_text(errors="replace")
    ] == []


def test_the_wheel_is_small() -> None:
    """A wheel is a zip of these files; its metadata are a few kilobytes more."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path in SHIPPED:
            wheel.write(path, path.relative_to(ROOT))
    assert len(packed.getvalue()) + 16_000 <= LARGEST_WHEEL
