"""One start to be accounted: what every estimate here is asked about."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from memserve.engines.deployment import Deployment
from memserve.hardware.machine import Machine
from memserve.memory.formats import DTYPE_BYTES
from memserve.model.spec import ModelSpec
from memserve_vllm.memory_facts import Facts


class Batch(NamedTuple):
    """What one profiling run holds."""

    sequences: int
    tokens: int
    v1: bool
    chunked: bool


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
        from memserve_vllm.memory_batch import batch

        return batch(self)

    @property
    def element(self) -> int:
        """Bytes of an activation."""
        return DTYPE_BYTES.get(self.deployment.dtype, 2)
