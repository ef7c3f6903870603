"""What the planner asks of a backend's room, beyond opening it: rules, memory, launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from memserve.engines.launch import Launch
from memserve.protocol import Backend

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.engines.deployment import Accountant, Deployment
    from memserve.hardware.machine import Machine
    from memserve.model.spec import ModelSpec

__all__ = ["Launch", "Launcher", "Plannable"]


class Launcher(Protocol):
    """A room's `launch`."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment for one deployment."""
        ...

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that a command line asks for; None if it is not this engine's."""
        ...


@runtime_checkable
class Plannable(Backend, Protocol):
    """One engine's room, as the planner sees it. Loads without the engine installed."""

    @property
    def rules(self) -> Mapping[str, Any]:
        """The room's rows: versions, quantizations by card, layouts; each with its source."""
        ...

    @property
    def memory(self) -> Accountant: ...
    @property
    def launch(self) -> Launcher: ...
