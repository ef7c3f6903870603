"""How a model can be spread over a machine: the layouts that are worth judging."""

from collections.abc import Iterator, Mapping
from typing import Any

from memserve.engines.deployment import Layout
from memserve.hardware.machine import Machine
from memserve.plan.query import Query

MOST_TENSOR = 64


def layouts(serves: Mapping[str, Any], machine: Machine, query: Query) -> list[Layout]:
    """Layouts, the smallest copies of the model first; `serves` is what the engine can do."""
    if serves.get("layers_over_cards"):
        return list(_by_layers(machine, query))
    found = {
        Layout(tensor=tensor, pipeline=pipeline, data=_copies(serves, machine, query, tensor * pipeline))
        for tensor in _tensors(machine, query)
        for pipeline in _pipelines(serves, machine, query, tensor)
    }
    return sorted(found, key=lambda layout: (layout.tensor * layout.pipeline, layout.pipeline))


def _by_layers(machine: Machine, query: Query) -> Iterator[Layout]:
    asked = query.pipeline_parallel
    stages = (asked,) if asked else range(1, machine.cards_per_node + 1)
    for pipeline in stages:
        yield Layout(tensor=query.tensor_parallel or 1, pipeline=pipeline, data=query.data_parallel or 1)


def _tensors(machine: Machine, query: Query) -> list[int]:
    if query.tensor_parallel:
        return [query.tensor_parallel]
    most = min(machine.cards_per_node, MOST_TENSOR)
    powers = [1 << n for n in range(most.bit_length()) if 1 << n <= most]
    divisors = [n for n in range(1, most + 1) if machine.cards_per_node % n == 0]
    return sorted({*powers, *divisors})


def _pipelines(serves: Mapping[str, Any], machine: Machine, query: Query, tensor: int) -> set[int]:
    if query.pipeline_parallel:
        return {query.pipeline_parallel}
    if not serves.get("pipeline") or tensor > machine.cards_per_node:
        return {1}
    fill = machine.cards_per_node // tensor
    return {1, fill, *((machine.nodes, machine.nodes * fill) if machine.nodes > 1 else ())}


def _copies(serves: Mapping[str, Any], machine: Machine, query: Query, cards: int) -> int:
    """Copies of the model that a node's cards hold beside each other, where the layout was left open."""
    if query.data_parallel:
        return query.data_parallel
    pinned = query.tensor_parallel or query.pipeline_parallel
    if pinned or not serves.get("data") or cards > machine.cards_per_node:
        return 1
    return machine.cards_per_node // cards
