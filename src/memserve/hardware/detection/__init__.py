"""Finds the cards of this machine: NVIDIA, Ascend, AMD, or the CPU itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memserve.hardware.detection import amd, ascend, host, nvidia, seen
from memserve.hardware.machine import Card, Machine

if TYPE_CHECKING:
    from memserve.hardware.detection.seen import Seen


def detect(*, env: Mapping[str, str] | None = None, nvml: Any = None, torch_npu: Any = None) -> Machine:
    """This machine: its cards that the environment lets an engine see, else its CPU.

    `nvml` and `torch_npu` stand in for the modules of those names.
    """
    environment = os.environ if env is None else env
    notes: list[str] = []
    looks = {"nvidia": lambda: nvidia.look(nvml), "ascend": lambda: ascend.look(torch_npu), "amd": amd.look}
    for vendor, look in looks.items():
        report = look()
        devices, hidden = seen.narrow(report.devices, vendor, environment)
        notes += [*report.notes, *hidden]
        if devices:
            return _machine(devices, notes)
    alone = host.machine()
    return replace(alone, notes=(*notes, *alone.notes))


def _machine(devices: Sequence[Seen], notes: Sequence[str]) -> Machine:
    group, told = _equal(devices)
    card = group[0][0]
    free = tuple(min(card.memory, _free(card, seen)) for _, seen in group)
    return Machine(
        card=card, cards_per_node=len(group), free_memory=free,
        host_memory=host.memory(), origin="detected", notes=(*notes, *told),
    )  # fmt: skip


def _free(card: Card, seen: Seen) -> int:
    """Where a driver names no figure the memory is the system's own (GB10), or not known to be in use."""
    if seen.free is not None:
        return seen.free
    shared = seen.total is None and seen.vendor == "nvidia"
    return (host.available() or card.memory) if shared else card.memory


def _equal(devices: Sequence[Seen]) -> tuple[list[tuple[Card, Seen]], list[str]]:
    """The cards to plan for: all where they are equal, else the group with most memory in all."""
    groups: dict[tuple[str, int], list[tuple[Card, Seen]]] = {}
    assumed: dict[str, tuple[str, ...]] = {}
    for device in devices:
        card, notes = seen.card_of(device)
        assumed[card.name] = notes
        groups.setdefault((card.name, card.memory), []).append((card, device))
    best = max(groups.values(), key=lambda group: group[0][0].memory * len(group))
    if best[0][1].slice is not None:
        return best[:1], [*_one_slice(best, len(devices)), *assumed[best[0][0].name]]
    return best, [*_mixed(groups, best), *assumed[best[0][0].name]]


def _one_slice(group: list[tuple[Card, Seen]], seen: int) -> list[str]:
    if seen == 1:
        return []
    return [f"{seen} MIG slices are visible; an engine uses one, so this plans for one {group[0][0].name}"]


def _mixed(groups: Mapping[tuple[str, int], list[tuple[Card, Seen]]],
           best: list[tuple[Card, Seen]]) -> list[str]:  # fmt: skip
    if len(groups) == 1:
        return []
    kinds = ", ".join(f"{len(group)}x{name}" for (name, _), group in groups.items())
    indices = ",".join(str(seen.index) for _, seen in best)
    variable = seen.VARIABLES[best[0][1].vendor][-1]
    return [
        f"the cards differ ({kinds}): this plans for {len(best)}x{best[0][0].name}; set {variable}={indices}"
    ]
