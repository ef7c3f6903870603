"""Judges a command that one already has: would this engine start, on these cards, and with what memory?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from memserve.engines.command import split
from memserve.engines.unstated import completed
from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB
from memserve.plan.described import Checkpoint
from memserve.plan.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memserve.engines.backend import Plannable
    from memserve.engines.deployment import Deployment
    from memserve.hardware.machine import Machine
    from memserve.model.spec import ModelSpec

NEWEST = "newest"
ROOMS = ("vllm", "sglang", "lmdeploy")
"""Rooms whose command lines can be read, in the order they are asked."""
AMPERE = 80
ON_ASCEND = {"vllm": "ascend"}
"""What the same command starts on an Ascend card."""


def check(command: str | Sequence[str], gpus: str | Machine | None = None, *,
          engine_version: str | None = None, memory_gib_per_card: float | None = None) -> Plan:  # fmt: skip
    """The verdict on a launch command, with its memory even where it does not fit.

    Raises only where the command, the machine or the model cannot be read.
    """
    from memserve.model import load
    from memserve.plan.search.verdict import assess

    machine = _machine(gpus, memory_gib_per_card)
    name, asked = _asked(split(command))
    room = _room(_backend(asked, machine))
    model = load(name)
    deployment = _settled(asked, model, machine, room, engine_version)
    verdict = assess(room, model, machine, deployment)
    deployment = replace(deployment, dtype=computed_in(deployment.dtype, model, machine))
    told = (verdict.reason,) if verdict.reason else ()
    return Plan(
        model=model, machine=machine, deployment=deployment, verdict=verdict,
        checkpoint=Checkpoint(name, deployment.quantization, online=bool(deployment.option("online"))),
        reasons=machine.notes if verdict.fits else told,
    )  # fmt: skip


def _backend(asked: Deployment, machine: Machine) -> str:
    return ON_ASCEND.get(asked.backend, asked.backend) if machine.card.vendor == "ascend" else asked.backend


def _settled(asked: Deployment, model: ModelSpec, machine: Machine, room: Plannable,
             version: str | None) -> Deployment:  # fmt: skip
    """The command's deployment on this machine, with nothing left open."""
    backend = _backend(asked, machine)
    deployment = replace(completed(asked, model), backend=backend, engine_version=version or _latest(room))
    if not deployment.option("fit-context"):
        return deployment
    largest = room.memory.largest_context(model, machine, deployment)
    return replace(deployment, context=largest or deployment.context)


def computed_in(dtype: str, model: ModelSpec, machine: Machine) -> str:
    """The dtype that an engine makes of `auto`: the checkpoint's, but no bfloat16 on a card without it."""
    if dtype not in ("auto", ""):
        return "float16" if dtype == "half" else dtype
    sm = machine.card.sm
    return "bfloat16" if model.dtype == "bfloat16" and (sm is None or sm >= AMPERE) else "float16"


def _machine(gpus: str | Machine | None, memory_gib: float | None) -> Machine:
    from memserve.hardware import detect, parse

    machine = detect() if gpus is None else parse(gpus) if isinstance(gpus, str) else gpus
    if memory_gib is None:
        return machine
    if not isinstance(memory_gib, int | float) or not 0 < memory_gib < 100_000:
        raise InvalidInput(f"memory_gib_per_card must be a positive number of GiB, not {memory_gib}")
    return replace(machine, card=replace(machine.card, memory=round(memory_gib * GIB)))


def _asked(words: tuple[str, ...]) -> tuple[str, Deployment]:
    for name in ROOMS:
        found = _room(name).launch.parse(words)
        if found is not None:
            return found
    raise InvalidInput(
        f"not a launch command that memserve can read: {' '.join(words[:3])[:80]!r}",
        hint="give 'vllm serve MODEL ...' or 'python -m sglang.launch_server --model-path MODEL ...'",
    )


def _room(name: str) -> Plannable:
    from typing import cast

    from memserve.registry import find

    return cast("Plannable", find(name))


def _latest(room: Plannable) -> str:
    versions = room.rules.get("versions") or ()
    return str(versions[0]["version"]) if versions else NEWEST
