"""What a project shows to the outside: workflows, forms, fragments, and no large file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
KINDS = {"added", "changed", "fixed", "removed"}


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, timeout=60)
    if listed.returncode:
        pytest.skip("not a git checkout: what is tracked is not known")
    return [path for name in listed.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def test_workflows_are_valid() -> None:
    pytest.importorskip("check_jsonschema", reason="the extra dev has it: check-jsonschema knows workflows")
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    files = map(str, sorted((ROOT / ".github" / "workflows").glob("*.yml")))
    done = subprocess.run([*words, *files], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_workflows_call_the_one_script() -> None:
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step.get("run", "") for job in ci["jobs"].values() for step in job["steps"]]
    assert ".ci/run" in steps
    pythons = ci["jobs"]["core"]["strategy"]["matrix"]["python"]
    wanted = re.search(r'requires-python = ">=(3\.\d+)', (ROOT / "pyproject.toml").read_text())
    assert wanted
    assert pythons[0] == wanted[1]


def test_issue_forms_have_what_a_form_needs() -> None:
    forms = [yaml.safe_load(path.read_text()) for path in FORMS if path.name != "config.yml"]
    assert len(forms) >= 3
    assert all({"name", "description", "body"} <= form.keys() for form in forms)


def test_fragments_name_their_kind() -> None:
    names = [path.name for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    assert [name for name in names if name.split(".")[-2] not in KINDS or not name.endswith(".md")] == []


def test_no_binary_file_is_large() -> None:
    """A reviewer can read what is here: text, or a small file."""
    large = [path for path in _tracked() if path.stat().st_size > 64 * 1024]
    assert [str(path.relative_to(ROOT)) for path in large if b"\0" in path.read_bytes()[:8192]] == []
