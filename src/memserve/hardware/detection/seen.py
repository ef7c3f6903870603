"""What a tool said about one device, before it is matched with the catalogue."""

from dataclasses import dataclass

from memserve.hardware.machine import Vendor

MIB = 1024**2


@dataclass(frozen=True)
class Seen:
    """One device as its driver shows it. Bytes; None: the driver did not say."""

    index: int
    name: str
    vendor: Vendor
    total: int | None = None
    free: int | None = None
    capability: tuple[int, int] | None = None
    soc: str | None = None
    uuid: str = ""
    framework_total: int | None = None
    """What torch itself reports, where it was asked."""
    slice: tuple[int, int] | None = None
    """MIG: compute slices of seven, and gigabytes of the profile 1g.10gb."""


@dataclass(frozen=True)
class Report:
    """What one vendor's tools found, and what is worth telling."""

    devices: tuple[Seen, ...] = ()
    notes: tuple[str, ...] = ()
