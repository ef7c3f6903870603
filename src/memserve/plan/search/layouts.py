"""How a model can be spread over a machine: the layouts that are worth judging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.engines.deployment import Layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from memserve.hardware.machine import Machine
    from memserve.plan.wishes import Wishes

MOST_TENSOR = 64


def layouts(serves: Mapping[str, Any], machine: Machine, wishes: Wishes) -> list[Layout]:
    """Layouts, the smallest copies of the model first; `serves` is what the engine can do."""
    if serves.get("layers_over_cards"):
        return list(_by_layers(machine, wishes))
    found = {
        Layout(tensor=tensor, pipeline=pipeline, data=_copies(serves, machine, wishes, tensor * pipeline))
        for tensor in _tensors(machine, wishes)
        for pipeline in _pipelines(serves, machine, wishes, tensor)
    }
    return sorted(found, key=lambda layout: (layout.tensor * layout.pipeline, layout.pipeline))


def _by_layers(machine: Machine, wishes: Wishes) -> Iterator[Layout]:
    asked = wishes.pipeline_parallel
    stages = (asked,) if asked else range(1, machine.cards_per_node + 1)
    for pipeline in stages:
        yield Layout(tensor=wishes.tensor_parallel or 1, pipeline=pipeline, data=wishes.data_parallel or 1)


def _tensors(machine: Machine, wishes: Wishes) -> list[int]:
    if wishes.tensor_parallel:
        return [wishes.tensor_parallel]
    most = min(machine.cards_per_node, MOST_TENSOR)
    powers = [1 << n for n in range(most.bit_length()) if 1 << n <= most]
    divisors = [n for n in range(1, most + 1) if machine.cards_per_node % n == 0]
    return sorted({*powers, *divisors})


def _pipelines(serves: Mapping[str, Any], machine: Machine, wishes: Wishes, tensor: int) -> set[int]:
    if wishes.pipeline_parallel:
        return {wishes.pipeline_parallel}
    if not serves.get("pipeline") or tensor > machine.cards_per_node:
        return {1}
    fill = machine.cards_per_node // tensor
    return {1, fill, *((machine.nodes, machine.nodes * fill) if machine.nodes > 1 else ())}


def _copies(serves: Mapping[str, Any], machine: Machine, wishes: Wishes, cards: int) -> int:
    """Copies of the model that a node's cards hold beside each other, where the layout was left open."""
    if wishes.data_parallel:
        return wishes.data_parallel
    pinned = wishes.tensor_parallel or wishes.pipeline_parallel
    if pinned or not serves.get("data") or cards > machine.cards_per_node:
        return 1
    return machine.cards_per_node // cards
