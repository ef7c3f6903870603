"""What the planner installs, an extra allows: pins in the rules and the extras of pyproject.toml agree."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
BACKENDS = sorted(path.parent.name for path in (ROOT / "backends").glob("*/rules.json"))
QUANTIZED_BY = {"hf": "gptq"}
"""The extra that a backend's quantized checkpoints need besides its own."""


def pins(node: Any) -> Iterator[Requirement]:
    """Every `name==version` in a table."""
    if isinstance(node, str) and "==" in node and " " not in node:
        yield Requirement(node)
    elif isinstance(node, list | dict):
        for part in node.values() if isinstance(node, dict) else node:
            yield from pins(part)


@pytest.mark.parametrize("folder", BACKENDS)
def test_a_pinned_release_is_one_that_the_extra_takes(folder: str) -> None:
    rules = json.loads((ROOT / "backends" / folder / "rules.json").read_text(encoding="utf-8"))
    name = folder.removeprefix("memserve_")
    asked = map(Requirement, [*EXTRAS[name], *EXTRAS.get(QUANTIZED_BY.get(name, ""), ())])
    limits = {need.name: need.specifier for need in asked}
    known = [pin for pin in pins(rules["versions"][0]) if pin.name in limits]
    versions = {str(pin): str(pin.specifier).removeprefix("==") for pin in known}
    assert known
    assert [pin for pin in known if not limits[pin.name].contains(versions[str(pin)], prereleases=True)] == []
