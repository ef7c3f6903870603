"""Judges one deployment of a checkpoint: by the engine's rules, then by its memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from memserve import files
from memserve.engines.backend import Plannable
from memserve.engines.deployment import Deployment
from memserve.engines.memory import Assumption, Footprint
from memserve.engines.rules.judge import Judge, Refusal
from memserve.hardware.machine import GIB, Machine
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import Verdict

if TYPE_CHECKING:
    from memserve.memory.calibration import Calibration


def fitted(backend: Plannable, model: ModelSpec, machine: Machine,
           deployment: Deployment) -> tuple[Deployment, Verdict]:  # fmt: skip
    """The least conceded form that holds; if none does, the last one tried and why not."""
    verdict = Verdict("out_of_memory", "memory")
    concessions = conceded(backend.rules, model, machine)
    for form in forms(concessions, deployment):
        verdict = held(backend, model, machine, form)
        deployment = form
        if verdict.fits or hopeless(verdict, concessions):
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


ABOUT = frozenset({"note", "vendor", "blind"})
"""What a concession's row says of itself, not of the deployment; `blind`: not for models with encoders."""


def conceded(rules: Mapping[str, Any], model: ModelSpec, machine: Machine) -> Sequence[Mapping[str, Any]]:
    """What the engine may be asked for instead on these cards, the least first."""
    rows = [row for row in rules.get("concessions", ({},)) if not (row.get("blind") and model.towers)]
    own = [row for row in rows if row.get("vendor") == machine.card.vendor]
    return own or [row for row in rows if "vendor" not in row]


def forms(concessions: Sequence[Mapping[str, Any]], deployment: Deployment) -> Iterator[Deployment]:
    """The deployment with each concession; the first is often none."""
    for concession in concessions:
        form = {name: value for name, value in concession.items() if name not in ABOUT}
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

    found = find(known, backend=deployment.backend, card=machine.card.name, tensor=deployment.layout.tensor,
                 version=deployment.engine_version)  # fmt: skip
    return footprint if found is None else found.apply(footprint)


def learnt_here(model: ModelSpec, machine: Machine, deployment: Deployment) -> Iterator[Assumption]:
    """What `--calibrate` taught and these figures rest on."""
    backend, card, tensor = deployment.backend, machine.card.name, deployment.layout.tensor
    if known := _calibrations():
        from memserve.memory.calibration import find

        memory = find(known, backend=backend, card=card, tensor=tensor, version=deployment.engine_version)
        if memory is not None:
            source = f"--calibrate {memory.log} {memory.date}"
            yield Assumption("memory_calibration", memory.version or "any release", source.strip())
    if files.is_configured(files.SPEED):
        from memserve.speed import learnt

        speed = learnt.find(backend, card, tensor, model.id)
        if speed is not None:
            yield Assumption("speed_calibration", speed.model, f"--calibrate {speed.source} {speed.date}")


@cache
def _calibrations() -> tuple[Calibration, ...]:
    if not files.is_configured(files.CALIBRATION):
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
    footprint = calibrated(backend.memory.account(model, machine, deployment), machine, deployment)
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
