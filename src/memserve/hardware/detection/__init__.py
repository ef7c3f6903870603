"""Finds the cards of this machine: NVIDIA, Ascend, AMD, or the CPU itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memserve.hardware.machine import Machine


def detect() -> Machine:
    """This machine."""
    from memserve.hardware.detection import host

    return host.machine()
