"""Stands in for an engine that cannot run here: the example plug-in under another's name."""

from __future__ import annotations

from typing import Any

from memserve.engines.package import Package


class StandIn(Package):
    """Takes any model and any option, as far as the page's words go."""

    default = True

    def open(self, model: str | None = None, *, task: Any = "generate", **options: Any) -> Any:
        return super().open(None, task=task)


backend = StandIn("toy", "memserve_toy")
