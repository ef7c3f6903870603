"""Starts what a plan names, watches it, stops it.  python -m memserve.serve PLAN.json"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import lazy

if TYPE_CHECKING:
    from memserve.serve.served import Served as Served
    from memserve.serve.served import open_served as open_served
    from memserve.serve.server import Server as Server
    from memserve.serve.server import start as start

_HOMES = {"Served": "served", "Server": "server", "open_served": "served", "start": "server"}
__all__ = sorted(_HOMES)
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)
