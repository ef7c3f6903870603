"""Judges a command that one already has: would this engine start, on these cards, and with what memory?"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from memserve.engines import installed
from memserve.engines.command import taken_apart
from memserve.engines.deployment import Deployment
from memserve.engines.install import VISIBLE
from memserve.engines.launch import Launch
from memserve.engines.memory import assumptions
from memserve.engines.rules.judge import drives
from memserve.engines.unstated import completed
from memserve.errors import InvalidInput
from memserve.hardware.machine import GIB, Machine
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import Checkpoint
from memserve.plan.plan import Plan

NEWEST = "newest"
AMPERE = 80


def check(command: str | Sequence[str], gpus: str | Machine | None = None, *,
          engine_version: str | None = None, memory_gib_per_card: float | None = None,
          context: int | None = None, concurrency: int | None = None) -> Plan:  # fmt: skip
    """The verdict on a launch command, with its memory even where it does not fit.

    `context` and `concurrency` say what is meant to run there, for engines whose commands bound neither.
    Raises only where the command, the machine or the model cannot be read.
    """
    from memserve.model import load
    from memserve.plan.search.judging import assess

    machine = _machine(gpus, memory_gib_per_card)
    variables, words = taken_apart(command)
    name, asked = _asked(words, machine)
    model = load(name)
    asked = replace(asked, concurrency=concurrency or 1, env=tuple(variables.items()))
    asked = _over_layers(asked, machine, variables)
    deployment = _settled(asked, model, machine, engine_version, context)
    if model.quantization and model.quantization.method != deployment.quantization:
        model = replace(model, quantization=None)  # the command names another of its files
    backend = installed.named(deployment.backend)
    verdict = assess(backend, model, machine, deployment)
    assumed = assumptions(backend.memory, model, machine, deployment)
    deployment = replace(deployment, dtype=computed_in(deployment.dtype, model, machine))
    told = (*((verdict.reason,) if verdict.reason else ()), *(() if model.exact else model.notes))
    return Plan(
        model=model, machine=machine, deployment=deployment, verdict=verdict,
        checkpoint=Checkpoint(name, deployment.quantization, online=bool(deployment.option("online"))),
        launch=Launch("", words, variables), assumed=assumed,
        reasons=(*told, *machine.notes) if verdict.fits else told,
    )  # fmt: skip


def _asked(words: tuple[str, ...], machine: Machine) -> tuple[str, Deployment]:
    """What the command starts: of two engines that it starts, the one that drives these cards."""
    read = []
    for backend in installed.plannable():
        found = installed.named(backend).launch.parse(words)
        if found is not None:
            read.append((found[0], replace(found[1], backend=backend)))
    if not read:
        raise InvalidInput(
            f"not a launch command that memserve can read: {' '.join(words[:3])[:80]!r}",
            hint="give 'vllm serve MODEL ...' or 'python -m sglang.launch_server --model-path MODEL ...'",
        )
    return next((one for one in read if drives(installed.named(one[1].backend).rules, machine)), read[0])


def _over_layers(asked: Deployment, machine: Machine, variables: Mapping[str, str]) -> Deployment:
    """An engine that spreads layers takes all cards that it sees."""
    if not installed.named(asked.backend).rules.get("serves", {}).get("layers_over_cards"):
        return asked
    seen = variables.get(VISIBLE.get(machine.card.vendor, ""))
    cards = len(seen.split(",")) if seen else machine.cards_per_node
    return replace(asked, layout=replace(asked.layout, pipeline=cards))


def _settled(asked: Deployment, model: ModelSpec, machine: Machine, version: str | None,
             context: int | None) -> Deployment:  # fmt: skip
    """The command's deployment on this machine, with nothing left open."""
    backend = installed.named(asked.backend)
    known = completed(asked, model, context)
    deployment = replace(known, engine_version=version or _latest(backend.rules))
    if not deployment.option("fit-context"):
        return deployment
    largest = backend.memory.largest_context(model, machine, deployment)
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


def _latest(rules: Mapping[str, object]) -> str:
    versions = rules.get("versions")
    return str(versions[0]["version"]) if isinstance(versions, list) and versions else NEWEST
