"""How the toy divides a card: a share is the engine's, and what weights and passes leave is the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve.engines.memory import Footprint
from memserve.hardware.machine import GIB
from memserve.memory import (
    Split,
    element_bytes,
    forward_bytes,
    largest_context,
    sequence_bytes,
    stage_bytes,
    stage_caches,
    storage,
)

if TYPE_CHECKING:
    from memserve.engines.deployment import Deployment
    from memserve.hardware.machine import Machine
    from memserve.model.spec import ModelSpec

SHARE = 0.5
RUNTIME = GIB // 4


class ToyAccountant:
    """The toy's start-up, as arithmetic."""

    def account(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> Footprint:
        """Divide one card."""
        layout, total = deployment.layout, machine.card.memory
        split = Split(layout.tensor, layout.tensor, layout.tensor)
        held_in = storage(model, deployment.quantization, deployment.dtype)
        weights = max(stage_bytes(model, split, held_in, layout.pipeline))
        usable = int(total * (deployment.utilization or SHARE))
        activation = forward_bytes(model, deployment.context, 2, layout.tensor)
        pool = usable - weights - activation - RUNTIME
        element = element_bytes(deployment.kv_dtype, deployment.dtype)
        stages = stage_caches(model, layout.pipeline, layout.tensor, element)
        tokens = max(0, pool) // max(sequence_bytes(stage, 1) for stage in stages)
        footprint = Footprint(
            total=total, usable=usable, weights=weights, activation=activation, non_torch=RUNTIME, graphs=0,
            kv_cache=max(0, pool), kv_tokens=tokens, max_concurrency=tokens / deployment.context,
        )  # fmt: skip
        short = f"{tokens:,} tokens are left for the cache"
        return footprint.fails("out_of_memory", short) if tokens < deployment.context else footprint

    def largest_context(self, model: ModelSpec, machine: Machine, deployment: Deployment) -> int:
        """The longest context that the pool holds."""
        return largest_context(self, model, machine, deployment)


accountant = ToyAccountant()
