"""Makes the checkpoint that a plan names, and judges it.  memserve compress MODEL --to METHOD"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import lazy

if TYPE_CHECKING:
    from memserve.compress.checks import Order as Order
    from memserve.compress.job import Job as Job
    from memserve.compress.report import Gate as Gate

_HOMES = {"Gate": "report", "Job": "job", "Order": "checks"}
__all__ = sorted(_HOMES)
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)
