"""What every engine's launch shares: install lines, the cards that a plan takes, option words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.plan.rules import release

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.hardware.machine import Machine
    from memserve.memory.account import Deployment

VISIBLE = {
    "nvidia": "CUDA_VISIBLE_DEVICES",
    "amd": "HIP_VISIBLE_DEVICES",
    "ascend": "ASCEND_RT_VISIBLE_DEVICES",
}


def install_line(rules: Mapping[str, Any], deployment: Deployment, vendor: str) -> str:
    """The command that installs the planned release with its pins, as the release's row lists them."""
    row = release(rules, deployment.engine_version)
    extra = row.get("quantized_by", {}).get(deployment.quantization.split("-")[0], ())
    words = [f'"{word}"' if set("<>!") & set(word) else word for word in (*row["packages"], *extra)]
    index = row.get("index", {}).get(vendor)
    return " ".join(
        (row.get("installer", "pip install"), *words, *(("--extra-index-url", index) if index else ()))
    )


def requirements(rules: Mapping[str, Any], deployment: Deployment) -> tuple[str, ...]:
    """What the install line cannot say: the Python it needs, the driver, and what an old release loses."""
    row = release(rules, deployment.engine_version)
    python = f"needs Python {row['python_range']}" if row.get("python_range") else ""
    return tuple(note for note in (python, row.get("needs", ""), row.get("lost", "")) if note)


def visible_cards(machine: Machine, taken: int) -> dict[str, str]:
    """The variable that keeps the engine on the planned cards, where it takes fewer than a node has."""
    name = VISIBLE.get(machine.card.vendor)
    if name is None or machine.nodes > 1 or taken >= machine.cards_per_node:
        return {}
    return {name: ",".join(str(index) for index in range(taken))}


def words(options: Mapping[str, object]) -> tuple[str, ...]:
    """Options as command-line words; None leaves one out, True is a bare flag."""
    said: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        said += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return tuple(said)
