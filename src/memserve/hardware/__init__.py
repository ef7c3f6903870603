"""What a machine is: cards, specs such as "4xV100", instance types, detection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import lazy

if TYPE_CHECKING:
    from memserve.hardware import instances as instances
    from memserve.hardware.catalogue import card as card
    from memserve.hardware.catalogue import cards as cards
    from memserve.hardware.catalogue import with_memory as with_memory
    from memserve.hardware.detection import detect as detect
    from memserve.hardware.machine import GIB as GIB
    from memserve.hardware.machine import Card as Card
    from memserve.hardware.machine import Link as Link
    from memserve.hardware.machine import Machine as Machine
    from memserve.hardware.spec import parse as parse

_HOMES = {
    "card": "catalogue", "cards": "catalogue", "with_memory": "catalogue", "detect": "detection",
    "GIB": "machine", "Card": "machine", "Link": "machine", "Machine": "machine", "parse": "spec",
    "instances": "instances",
}  # fmt: skip
__all__ = sorted(_HOMES)
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)
