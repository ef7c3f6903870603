"""Judges one deployment of a checkpoint: by the engine's rules, then by its memory."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from memserve.engines import making
from memserve.engines.backend import Plannable
from memserve.engines.deployment import Deployment
from memserve.engines.memory import Assumption, Footprint
from memserve.engines.rules.judge import Judge, Refusal
from memserve.hardware.machine import GIB, Machine
from memserve.model.spec import ModelSpec, remembered
from memserve.plan.candidate import Checkpoint, Verdict

if TYPE_CHECKING:
    from memserve.memory.calibration import Calibration
    from memserve.model import catalogue


MODELSLIM = "modelslim"
BY_MODELSLIM = frozenset({"w8a8", "w4a8", "w8a16"})
"""What engines on Ascend read as ModelSlim writes it, and no engine elsewhere does."""


def checkpoints(model: ModelSpec, quantization: str, *, online: bool,
                ascend: bool = False) -> list[Checkpoint]:  # fmt: skip
    """What could be loaded for this quantization, known checkpoints first."""
    known = known_checkpoints(model, quantization, ascend=ascend)
    if model.quantization is not None:
        known = [] if model.quantization.method == quantization else known
        bits = model.quantization.bits
        return known or [Checkpoint(model.id, quantization, model.source, stored=True, bits=bits)]
    if quantization == "none":
        return [Checkpoint(model.id, quantization, model.source, bits=16)]
    if known:
        return known
    if online:
        return [Checkpoint(model.id, quantization, model.source, online=True)]
    made = to_make(model, quantization, ascend=ascend)
    return [made] if made else []


def known_checkpoints(model: ModelSpec, quantization: str, *, ascend: bool = False) -> list[Checkpoint]:
    """The quantized checkpoints in the catalogue that engines for this maker read, with who names them."""
    return [
        Checkpoint(
            one.id, quantization, one.source, bits=one.bits, group_size=one.group_size, block=one.block
        )
        for one in _rows_of(model)
        if one.method == quantization
        and (one.format == MODELSLIM) == (ascend and quantization in BY_MODELSLIM)
    ]


def known_methods(model: ModelSpec) -> list[str]:
    """Quantizations in which the catalogue knows a checkpoint of the model."""
    return [one.method for one in _rows_of(model)]


def _rows_of(model: ModelSpec) -> tuple[catalogue.Checkpoint, ...]:
    from memserve.model import catalogue

    row = catalogue.find(model.id)
    return row.checkpoints if row is not None else ()


def loaded(model: ModelSpec, checkpoint: Checkpoint) -> ModelSpec:
    """The shapes that are really loaded: a known checkpoint's own, where the catalogue has them."""
    if checkpoint.id == model.id or checkpoint.make or checkpoint.online:
        return model
    return remembered(model, checkpoint, lambda: _loaded(model, checkpoint))


def _loaded(model: ModelSpec, checkpoint: Checkpoint) -> ModelSpec:
    from memserve.model import catalogue, load
    from memserve.model.spec import Quantization

    if catalogue.find(checkpoint.id) is not None:
        return replace(load(checkpoint.id), pooling=model.pooling)
    own = (checkpoint.group_size, checkpoint.block) == (None, None)
    if own and checkpoint.bits == _usual_bits(checkpoint) and model.quantization is None:
        return model
    method, block = checkpoint.quantization, checkpoint.block
    stored = Quantization(
        method=method, checkpoint_method=method, bits=checkpoint.bits,
        group_size=checkpoint.group_size or catalogue.usual_group(method),
        block=(block, block) if block else None,
    )  # fmt: skip
    return replace(model, quantization=stored)


def _usual_bits(checkpoint: Checkpoint) -> int:
    return 8 if checkpoint.quantization in ("fp8", "w8a8", "int8", "w8a16") else 4


def to_make(model: ModelSpec, quantization: str, *, ascend: bool) -> Checkpoint | None:
    """A checkpoint that does not exist yet, with the command that makes it; None where nobody makes it."""
    vendor = "ascend" if ascend and quantization in BY_MODELSLIM else ""
    kind, _, level = quantization.partition("-")
    row = making.table(vendor)["methods"].get(kind)
    if row is None or row.get("prunes") or not re.fullmatch(row.get("form", ""), level):
        return None
    short = model.id.rstrip("/").rsplit("/", 1)[-1]
    folder = f"./{short}-{quantization}"
    words = {"{model}": model.id, "{target}": folder, "{short}": short, "{method}": quantization}
    make = row.get("command", "memserve compress {model} --to {method} -o {target}")
    for name, word in words.items():
        make = make.replace(name, shlex.quote(word))
    place = f"{folder}/{short}-{quantization}.gguf" if level else folder
    return Checkpoint(place, quantization, f"to be made first: {row['source']}", make=make)


def fitted(backend: Plannable, model: ModelSpec, machine: Machine,
           deployment: Deployment) -> tuple[Deployment, Verdict]:  # fmt: skip
    """The least conceded form that holds; if none does, the last one tried and why not."""
    verdict = Verdict("out_of_memory", "memory")
    for form in forms(conceded(backend.rules, machine), deployment):
        verdict = held(backend, model, machine, form)
        deployment = form
        if verdict.fits or hopeless(verdict, conceded(backend.rules, machine)):
            break
    return deployment, verdict


def offloaded(backend: Plannable, model: ModelSpec, machine: Machine,
              deployment: Deployment) -> tuple[Deployment, Verdict]:  # fmt: skip
    """The form with the fewest layers on the host that the cards hold: whether the host holds those."""
    low, high = 1, len(model.blocks) - deployment.layout.pipeline
    while low < high:
        middle = (low + high) // 2
        held_by_cards = backend.memory.account(model, machine, replace(deployment, host_layers=middle))
        ample = held_by_cards.max_concurrency * deployment.layout.data >= deployment.concurrency
        low, high = (low, middle) if held_by_cards.free >= 0 and ample else (middle + 1, high)
    form = replace(deployment, host_layers=high)
    return form, held(backend, model, machine, form)


def conceded(rules: Mapping[str, Any], machine: Machine) -> Sequence[Mapping[str, Any]]:
    """What the engine may be asked for instead on these cards, the least first."""
    rows = rules.get("concessions", ({},))
    own = [row for row in rows if row.get("vendor") == machine.card.vendor]
    return own or [row for row in rows if "vendor" not in row]


def forms(concessions: Sequence[Mapping[str, Any]], deployment: Deployment) -> Iterator[Deployment]:
    """The deployment with each concession; the first is often none."""
    for concession in concessions:
        form = {name: value for name, value in concession.items() if name not in ("note", "vendor")}
        if form.get("max_sequences"):
            form["max_sequences"] = max(form["max_sequences"], deployment.concurrency)
        yield replace(deployment, **form)


def held(backend: Plannable, model: ModelSpec, machine: Machine, deployment: Deployment) -> Verdict:
    """Memory's verdict, and whether the pool holds the requests that are wanted at once."""
    footprint = calibrated(backend.memory.account(model, machine, deployment), machine, deployment)
    verdict = weighed(footprint, deployment)
    if not verdict.fits:
        return verdict
    if footprint.free < 0:
        reason = f"{-footprint.free / GIB:.2f} GiB are missing when CUDA graphs are captured"
        return Verdict("out_of_memory", "memory", reason, "memserve's account", footprint)
    wanted, copies = deployment.concurrency, deployment.layout.data
    if footprint.max_concurrency * copies >= wanted:
        return verdict
    reason = (
        f"holds {footprint.max_concurrency * copies:.1f} requests of {deployment.context} tokens at once"
        f" and {wanted} are wanted"
    )
    return Verdict("out_of_memory", "concurrency", reason, verdict.source or "memserve's account", footprint)


def calibrated(footprint: Footprint, machine: Machine, deployment: Deployment) -> Footprint:
    """With the constants of the user's own machine, where a start-up log taught them."""
    known = _calibrations()
    if not known:
        return footprint
    from memserve.memory.calibration import find

    found = find(known, backend=deployment.backend, card=machine.card.name, tensor=deployment.layout.tensor)
    return footprint if found is None else found.apply(footprint)


def learnt_here(model: ModelSpec, machine: Machine, deployment: Deployment) -> Iterator[Assumption]:
    """What `--calibrate` taught and these figures rest on."""
    from memserve.memory import calibration_file

    backend, card, tensor = deployment.backend, machine.card.name, deployment.layout.tensor
    if known := _calibrations():
        from memserve.memory.calibration import find

        memory = find(known, backend=backend, card=card, tensor=tensor)
        if memory is not None:
            source = f"--calibrate {memory.log} {memory.date}"
            yield Assumption("memory_calibration", memory.version or "", source.strip())
    if calibration_file.exists(calibration_file.SPEED):
        from memserve.speed import learnt

        speed = learnt.find(backend, card, tensor, model.id)
        if speed is not None:
            yield Assumption("speed_calibration", speed.model, f"--calibrate {speed.source} {speed.date}")


@cache
def _calibrations() -> tuple[Calibration, ...]:
    from memserve.memory.calibration_file import exists

    if not exists():
        return ()
    from memserve.memory.calibration import load

    return load()


def hopeless(verdict: Verdict, concessions: Sequence[Mapping[str, Any]]) -> bool:
    """The weights alone exceed what the boldest concession would give: no other need be tried."""
    footprint = verdict.footprint
    shares = (concession.get("utilization") or 0.0 for concession in concessions)
    return footprint is not None and footprint.weights > footprint.total * (max(shares) or 1.0)


def assess(backend: Plannable, model: ModelSpec, machine: Machine, deployment: Deployment) -> Verdict:
    """Would this deployment start here? Memory is stated even where a rule refuses."""
    refusal = Judge(backend.rules, deployment.engine_version, model, machine)(deployment)
    footprint = backend.memory.account(model, machine, deployment)
    return refused(refusal, footprint) if refusal else weighed(footprint, deployment)


def refused(refusal: Refusal, footprint: Footprint | None = None) -> Verdict:
    """A rule's verdict."""
    return Verdict("refused", refusal.rule, refusal.reason, refusal.source, footprint)


def weighed(footprint: Footprint, deployment: Deployment) -> Verdict:
    """Memory's verdict."""
    if footprint.outcome == "runs":
        return Verdict("runs", footprint=footprint)
    reason = "; ".join(footprint.reasons) or "the card's memory does not hold it"
    source = f"memserve's account of {deployment.backend} {deployment.engine_version}"
    return Verdict(footprint.outcome, "memory", reason, source, footprint)
