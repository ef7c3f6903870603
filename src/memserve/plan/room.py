"""What the planner asks of a backend's room, beyond opening it: rules, memory, launch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from memserve.protocol import Backend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.hardware.machine import Machine
    from memserve.memory.account import Accountant, Deployment
    from memserve.model.spec import ModelSpec


@dataclass(frozen=True)
class Launch:
    """How to start what was planned."""

    install: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Launcher(Protocol):
    """A room's `launch`."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment for one deployment."""
        ...

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that a command line asks for; None if it is not this engine's."""
        ...


@runtime_checkable
class Room(Backend, Protocol):
    """One engine's room, as the planner sees it. Loads without the engine installed."""

    @property
    def rules(self) -> Mapping[str, Any]:
        """The room's rows: versions, quantizations by card, layouts; each with its source."""
        ...

    @property
    def memory(self) -> Accountant: ...
    @property
    def launch(self) -> Launcher: ...
