"""Measures what runs, beside what was planned.  memserve bench --base-url URL --model M"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import lazy

if TYPE_CHECKING:
    from memserve.bench.measuring import Level as Level
    from memserve.bench.measuring import measure as measure
    from memserve.bench.report import Report as Report
    from memserve.bench.target import Target as Target

_HOMES = {"Level": "measuring", "Report": "report", "Target": "target", "measure": "measuring"}
__all__ = sorted(_HOMES)
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)
