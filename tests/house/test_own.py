"""What is shipped is ours and can be read: no code from data, no blobs, a small wheel."""

from __future__ import annotations

import ast
import io
import json
import re
import runpy
import sys
import zipfile
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PACKAGES = [ROOT / "src" / "memserve", *sorted((ROOT / "backends").glob("memserve_*"))]
SHIPPED = [
    path
    for package in PACKAGES
    for path in sorted(package.rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts
]
INFO = "memserve-0.1.0.dist-info"
LARGEST_WHEEL = 1_140_000
SAVED = 1.025
"""At least what `tools/small_wheel.py` saves of a plain zip; `.ci/release` weighs the wheel itself."""
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


def _entry(path: Path) -> str:
    """A file's name in the wheel: packages stand side by side."""
    return path.relative_to(ROOT / ("src" if path.is_relative_to(ROOT / "src") else "backends")).as_posix()


def _row(name: str, data: bytes) -> str:
    """A file's line in the wheel's RECORD: its hash does not pack."""
    digest = urlsafe_b64encode(sha256(data).digest()).decode().rstrip("=")
    return f"{name},sha256={digest},{len(data)}\n"


def _metadata() -> str:
    """What a wheel says of itself: pyproject.toml's words, each extra's requirements in full, and README."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    said = [project["description"], *project["keywords"], *project["dependencies"]]
    said += [f"Classifier: {one}" for one in project["classifiers"]]
    for extra in extras:
        said += [f"Provides-Extra: {extra}"]
        said += [f"Requires-Dist: {need}; extra == '{extra}'" for need in _needs(extra, extras)]
    return "\n".join([*said, (ROOT / project["readme"]).read_text(encoding="utf-8")])


def _needs(extra: str, extras: dict[str, list[str]]) -> list[str]:
    """An extra's requirements, those of the extras it names included."""
    needs: list[str] = []
    for need in extras[extra]:
        named = need.removeprefix("memserve[").removesuffix("]").split(",")
        needs += [one for name in named for one in _needs(name, extras)] if "memserve[" in need else [need]
    return sorted(set(needs))


def test_a_table_in_the_wheel_holds_the_same_facts() -> None:
    bare = runpy.run_path(str(ROOT / "tools" / "data.py"))["bare"]
    tables = [path for path in SHIPPED if path.suffix == ".json"]
    for path in tables:
        whole, packed = json.loads(path.read_bytes()), json.loads(bare(path.name, path.read_bytes()))
        assert {**packed, **({"note": whole["note"]} if "note" in whole else {})} == whole
    assert len(tables) > 50 and bare("x.py", b"note = 1") == b"note = 1"
    assert bare("x.jsonl", b'{"note": "1", "date": 2}\n{"note": 3}\n') == b'{"date":2}\n{"note": 3}\n'


def test_the_wheel_is_small() -> None:
    """A wheel is a zip of these files, of what it says of itself, and of a RECORD with a hash of each."""
    bare = runpy.run_path(str(ROOT / "tools" / "data.py"))["bare"]
    held = {_entry(path): bare(path.name, path.read_bytes()) for path in SHIPPED}
    held[f"{INFO}/METADATA"] = _metadata().encode()
    held[f"{INFO}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    points = re.findall(r"^\S+ = \"memserve\S*:\S+\"$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    held[f"{INFO}/entry_points.txt"] = "\n".join(points).encode()
    held[f"{INFO}/WHEEL"] = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    held[f"{INFO}/RECORD"] = "".join(_row(name, data) for name, data in held.items()).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in held.items():
            wheel.writestr(name, data)
    assert len(packed.getvalue()) <= LARGEST_WHEEL * SAVED
