"""What a machine is: cards, specs such as "4xV100", instance types, detection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
    "card": "catalogue",
    "cards": "catalogue",
    "with_memory": "catalogue",
    "detect": "detection",
    "GIB": "machine",
    "Card": "machine",
    "Link": "machine",
    "Machine": "machine",
    "parse": "spec",
}
__all__ = [*sorted(_HOMES), "instances"]


def __getattr__(name: str) -> Any:
    if name == "instances":
        return import_module(f"{__name__}.instances")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
