"""A CPU as a card: its rates follow from cores and instruction sets, its bandwidth from cores."""

from dataclasses import replace

from memserve.hardware.catalogue import card
from memserve.hardware.machine import Card

# Operations per cycle and core with the widest usable instructions (two units of that width).
_FLOATS_PER_CYCLE = {"amx": 64, "avx512": 64, "avx2": 32, "asimd": 16, "": 8}
_BFLOATS_PER_CYCLE = {"amx": 1024, "avx512": 128}
_CLOCK = 2.5e9
_BANDWIDTH_OF_CORE = 10e9
"""Bytes per second that one core gets from memory; the assumed server's bandwidth bounds all of them."""


def processor(cores: float, ram: int, widest: str = "avx512") -> Card:
    """A CPU of so many cores and bytes of RAM."""
    assumed, per_second = card("CPU"), cores * _CLOCK
    floats = per_second * _FLOATS_PER_CYCLE[widest]
    flops = {"float32": floats, "bfloat16": per_second * _BFLOATS_PER_CYCLE.get(widest, 0) or floats,
             "int8": floats * 2}  # fmt: skip
    return replace(
        assumed, memory=ram, driver_memory=ram, nominal_gb=round(ram / 1e9, 1), flops=flops,
        bandwidth=min(assumed.bandwidth, cores * _BANDWIDTH_OF_CORE), memory_measured=True,
        notes=("rates are estimated from cores and instruction sets; bandwidth is assumed",),
    )  # fmt: skip
