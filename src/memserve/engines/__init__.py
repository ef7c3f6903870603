"""What a backend may tell the planner and the launcher, as protocols, and the values between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import lazy

if TYPE_CHECKING:
    from memserve.engines.backend import Plannable as Plannable
    from memserve.engines.backend import Servable as Servable
    from memserve.engines.command import Grammar as Grammar
    from memserve.engines.command import Words as Words
    from memserve.engines.deployment import Deployment as Deployment
    from memserve.engines.deployment import Layout as Layout
    from memserve.engines.launch import Launch as Launch
    from memserve.engines.launch import Launcher as Launcher
    from memserve.engines.log import Logged as Logged
    from memserve.engines.memory import Accountant as Accountant
    from memserve.engines.memory import Footprint as Footprint
    from memserve.engines.package import Package as Package
    from memserve.engines.server import Program as Program
    from memserve.engines.server import ServerFacts as ServerFacts
    from memserve.engines.speed import Timed as Timed

_HOMES = {
    "Plannable": "backend", "Servable": "backend", "Grammar": "command", "Words": "command",
    "Deployment": "deployment", "Layout": "deployment", "Launch": "launch", "Launcher": "launch",
    "Logged": "log", "Accountant": "memory", "Footprint": "memory", "Package": "package",
    "Program": "server", "ServerFacts": "server", "Timed": "speed",
}  # fmt: skip
__all__ = sorted(_HOMES)
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)
