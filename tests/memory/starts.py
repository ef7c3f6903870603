"""Real start-ups, judged once and shared by the tests of this folder."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memserve.hardware import Machine, parse
from memserve.model.reader import from_config
from memserve.plan import check

if TYPE_CHECKING:
    from memserve.model.spec import ModelSpec
    from memserve.plan.plan import Plan

DATA = Path(__file__).parents[1] / "data" / "memory"
GIB = 1024**3


@cache
def configs() -> dict[str, dict[str, Any]]:
    """The config.json of every model that the starts name."""
    return json.loads((DATA / "configs.json").read_text(encoding="utf-8"))


def config(name: str) -> dict[str, Any]:
    """One config by the end of its folder's name, as "Llama-3.1-8B-Instruct"."""
    found = [value for key, value in configs().items() if key.split("/")[-2].endswith(name)]
    assert found, name
    return found[0]


@cache
def model(name: str) -> ModelSpec:
    """One model by the end of its name."""
    return from_config(config(name), path=name)


@cache
def rows(name: str) -> tuple[dict[str, Any], ...]:
    """The starts of `h100` or of `logs`."""
    return tuple(json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["rows"])


def h100(cards: int = 1, gib: float = 79.19) -> Machine:
    """The machine of the vLLM 0.19 starts."""
    machine = parse(f"{cards}xH100")
    return replace(machine, card=replace(machine.card, memory=round(gib * GIB)))


def judge(row: dict[str, Any], folder: Path) -> Plan:
    """memserve's answer to one start's command."""
    path = folder / f"{row['config'].split('/')[-2]}.json"
    if not path.exists():
        path.write_text(json.dumps(configs()[row["config"]]), encoding="utf-8")
    words = [str(path) if word == "MODEL" else word for word in row["command"]]
    return check(words, row["gpus"], engine_version=row["version"], memory_gib_per_card=row.get("memory_gib"))
