"""What a backend may tell beyond opening its engine: each part is a protocol, asked for by `isinstance`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

from memserve.engines.launch import Launcher
from memserve.engines.memory import Accountant

if TYPE_CHECKING:
    from memserve.engines.server import ServerFacts


@runtime_checkable
class Plannable(Protocol):
    """One that runs on the user's own cards. Loads without the engine installed."""

    @property
    def rules(self) -> Mapping[str, Any]:
        """Rows: versions, quantizations by card, layouts; each with its source."""
        ...

    @property
    def memory(self) -> Accountant:
        """How the engine divides a card's memory."""
        ...

    @property
    def launch(self) -> Launcher:
        """How the engine is installed and started."""
        ...


@runtime_checkable
class Provider(Protocol):
    """One behind a wire that says whether it serves its maker's models only."""

    @property
    def closed(self) -> bool:
        """No open model, and no server of one's own, stands behind it."""
        ...


@runtime_checkable
class Servable(Protocol):
    """One whose engine has a server: it can be started by memserve, packed, and spread over nodes."""

    @property
    def server(self) -> ServerFacts | None:
        """How the server listens, asks for keys, spans nodes and is packed; None where there is none."""
        ...


def is_plannable(backend: object) -> TypeGuard[Plannable]:
    """Whether a backend can be planned with. A class that says so is not asked for its parts, which load."""
    return Plannable in type(backend).__mro__ or isinstance(backend, Plannable)


def server_of(backend: object) -> ServerFacts | None:
    """What a backend tells of its server."""
    return backend.server if isinstance(backend, Servable) else None
