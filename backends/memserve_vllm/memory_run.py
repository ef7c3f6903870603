"""One start to be accounted: what every estimate here is asked about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from memserve.memory.formats import DTYPE_BYTES
from memserve_vllm.memory_batch import batch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.engines.deployment import Deployment
    from memserve.hardware.machine import Machine
    from memserve.model.spec import ModelSpec
    from memserve_vllm.memory_batch import Batch
    from memserve_vllm.memory_facts import Facts


@dataclass(frozen=True)
class Run:
    """A model's deployment on a machine, beside the tables that speak of it."""

    facts: Facts
    model: ModelSpec
    machine: Machine
    deployment: Deployment

    def row(self, name: str) -> Mapping[str, Any]:
        """The row of a table for this version and card."""
        return self.facts.row(name, self.deployment.engine_version, self.machine.card)

    @cached_property
    def batch(self) -> Batch:
        """Sequences and tokens of the profiling run."""
        return batch(self)

    @property
    def element(self) -> int:
        """Bytes of an activation."""
        return DTYPE_BYTES.get(self.deployment.dtype, 2)
