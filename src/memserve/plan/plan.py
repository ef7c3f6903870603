"""The planner's answer in values: a plan with its launch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memserve.engines import installed
from memserve.engines.launch import Launch
from memserve.engines.memory import Assumption
from memserve.hardware.machine import GIB, Machine
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import UNTIMED, Candidate, Judged
from memserve.plan.page import Shown

if TYPE_CHECKING:
    from memserve.engines.flags import NotCounted
    from memserve.plan.page import Section

SCREEN = 4000
"""Characters of a printed plan."""


@dataclass(frozen=True, repr=False)
class Plan(Judged, Shown):
    """What to run: a candidate, how to start it, and what else was considered."""

    model: ModelSpec
    machine: Machine
    launch: Launch | None = None
    reasons: tuple[str, ...] = ()
    """Why this one, what was assumed and what is lost; for one that does not fit, why not."""
    not_counted: tuple[NotCounted, ...] = ()
    """The flags of a command that one has whose bytes are not in the figures."""
    largest_context: int | None = None
    """The longest context that this deployment holds."""
    speed: Mapping[str, Any] | None = None
    cost: Mapping[str, Any] | None = None
    workload: Mapping[str, Any] | None = None
    """Hours, energy and money of the workload that was named."""
    assumed: tuple[Assumption, ...] = ()
    """What nobody said and the memory and the speed rest on."""
    remote: bool = False
    alternatives: tuple[Plan, ...] = ()
    rejected: tuple[Candidate, ...] = ()

    @property
    def assumptions(self) -> list[dict[str, Any]]:
        """What nobody said and the figures rest on, the workload's included: name, value, source."""
        return [*(one._asdict() for one in self.assumed), *(self.workload or {}).get("assumptions", ())]

    @property
    def evidence(self) -> dict[str, dict[str, str]]:
        """What each figure rests on: measured, calibrated, published, computed, assumed, or given."""
        learnt = {one.name: one.source for one in self.assumed}
        found: dict[str, tuple[str, str]] = {}
        if self.footprint is not None:
            counted = "measured", "real starts of this class, which give the error bars"
            counted = (
                counted if self.footprint.bars else ("computed", "as the engine does; no start is known")
            )
            found["memory"] = counted
        if self.speed:
            rows = installed.speeds().get(self.backend, {})
            told = "published", f"{rows.get('rows', 0)} rows: {rows.get('source', '')}"
            never = "assumed", f"{UNTIMED}: reckoned from what the hardware allows"
            found["speed"] = never if self.speed["at_most"] else told
        for name in ("memory", "speed"):
            if f"{name}_calibration" in learnt:
                found[name] = "calibrated", learnt[f"{name}_calibration"]
        cost = self.cost or {}
        if any(cost.get(name) is not None for name in ("usd_per_hour", "cny_per_hour", "usd_per_mtok_input")):
            own = not self.remote and cost["usd_per_hour"] is not None and not cost["instance"]
            found["price"] = "given" if own else "published", str(cost["source"])
        if self.workload:
            taken = self.workload["assumptions"]
            found["hours"] = (
                ("assumed", taken[0]["source"]) if taken else ("computed", "speed, or rpm and tpm")
            )
        return {name: {"kind": kind, "source": source} for name, (kind, source) in found.items()}

    @property
    def install(self) -> str:
        """The command that installs the engine; empty where nothing is to be installed."""
        return self.launch.install if self.launch else ""

    @property
    def command(self) -> list[str]:
        """The command that starts it."""
        return list(self.launch.command) if self.launch else []

    @property
    def env(self) -> dict[str, str]:
        """The environment that the command needs."""
        return dict(self.launch.env) if self.launch else {}

    def sections(self, *, why: bool = False, everything: bool = False, most: int = 100) -> Iterable[Section]:
        """The plan for a person: decisions, memory, commands, at most so many reasons and alternatives."""
        from memserve.plan.sections import of_plan

        return of_plan(self, most=most)

    def __str__(self) -> str:
        """A screen: as many reasons as there is place for."""
        from memserve.plan.page import WIDTH, text

        for most in (12, 6, 3, 1, 0):
            page = text(self.sections(most=most), WIDTH).rstrip("\n")
            if len(page) <= SCREEN:
                break
        return page if len(page) <= SCREEN else f"{page[: SCREEN - 4]} ..."

    def bare(self) -> dict[str, Any]:
        """The plan as it stands inside an answer."""
        from memserve.plan import storage
        from memserve.plan.nodes import steps

        layout = None if self.remote else self.deployment.layout
        return {
            "backend": self.backend, "engine_version": self.engine_version or None,
            "quantization": self.quantization, "dtype": self.dtype,
            "tensor_parallel": layout and layout.tensor,
            "pipeline_parallel": layout and layout.pipeline,
            "data_parallel": layout and layout.data,
            "expert_parallel": layout and layout.expert,
            "host_layers": layout and self.deployment.host_layers,
            "kv_dtype": self.kv_dtype, "context": self.context, "largest_context": self.largest_context,
            "concurrency": self.concurrency,
            "checkpoint": self.checkpoint.id, "checkpoint_source": self.checkpoint.source,
            "make_checkpoint": self.checkpoint.make,
            "install": self.install, "command": self.command, "env": self.env,
            "nodes": [step.to_dict() for step in steps(self)],
            "fits": self.fits, "outcome": self.outcome,
            "memory_gib_per_card": self.memory_gib_per_card,
            "error_bars": self.error_bars, "tight": self.tight or None,
            "kv_cache_tokens": self.kv_cache_tokens, "max_concurrency": self.max_concurrency,
            "speed": self.speed, "cost": self.cost, "workload": self.workload, "reasons": list(self.reasons),
            "not_counted": [{"name": one.name, "reason": one.reason} for one in self.not_counted],
            "assumptions": self.assumptions, "evidence": self.evidence, "storage": storage.told(self),
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The plan object of the JSON answer, plus its model and machine."""
        return {"model": model_object(self.model), "machine": machine_object(self.machine), **self.bare()}


def model_object(model: ModelSpec) -> dict[str, Any]:
    """Who the model is."""
    return {
        "id": model.id, "architecture": model.architecture or None,
        "parameters": model.parameters if model.blocks else None,
        "active_parameters": model.active_parameters if model.blocks else None,
        "exact": model.exact,
        "source": model.source, "notes": list(model.notes),
    }  # fmt: skip


def machine_object(machine: Machine) -> dict[str, Any]:
    """What it is planned for."""
    return {
        "nodes": machine.nodes, "cards_per_node": machine.cards_per_node, "card": machine.card.name,
        "memory_gib_per_card": round(machine.card.memory / GIB, 2), "origin": machine.origin,
        "notes": list(machine.notes),
    }  # fmt: skip
