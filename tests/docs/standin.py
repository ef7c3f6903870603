"""Stands in for an engine that cannot run here: the example plug-in under another's name."""

from __future__ import annotations

from typing import Any

from memserve_toy import backend as toy


class StandIn:
    """Takes any model and any option, as far as the page's words go."""

    default = True
    capabilities = toy.capabilities

    def open(self, model: str | None = None, *, task: Any = "generate", **options: Any) -> Any:
        return toy.open(None, task=task)


backend = StandIn()
