"""What a backend's `launch` answers: how to start a deployment, and which deployment a command starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from memserve.engines.deployment import Deployment
from memserve.hardware.machine import Machine
from memserve.model.spec import ModelSpec


@dataclass(frozen=True)
class Launch:
    """How to start what was planned."""

    install: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Launcher(Protocol):
    """Writes an engine's command, and reads it back."""

    def launch(self, model: ModelSpec, checkpoint: str, machine: Machine, deployment: Deployment) -> Launch:
        """The install line, the command and its environment for one deployment."""
        ...

    def parse(self, command: tuple[str, ...]) -> tuple[str, Deployment] | None:
        """The model and the deployment that a command line asks for; None if it is not this engine's."""
        ...
