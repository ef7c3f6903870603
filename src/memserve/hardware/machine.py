"""What a machine is: nodes of equal cards. Bytes and bytes per second inside."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

Vendor: TypeAlias = str
"""nvidia, amd, ascend, intel, habana, google, apple, cpu; or whose cards an installed backend brings."""
GIB = 1024**3


@dataclass(frozen=True)
class Link:
    """How cards of one node, or nodes, talk: bytes per second one way, per card."""

    kind: str
    bytes_per_second: float
    source: str = ""


@dataclass(frozen=True)
class Access:
    """How clusters count a maker's cards, and what a container is handed of them; empty: unknown."""

    kubernetes: str = ""
    """The resource that its device plugin counts."""
    remark: str = ""
    """What else may be true of that resource."""
    slurm: str = ""
    """The option of sbatch."""
    ray: str = ""
    """Ray's own resource, where it does not see the cards that Kubernetes counts."""
    driver: str = ""
    """The container runtime's, where that hands in cards by itself."""
    device: str = ""
    """The file of each card."""
    devices: tuple[str, ...] = ()
    """Files that all cards share."""
    groups: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    """What of the host's driver is mounted."""
    source: str = ""


@dataclass(frozen=True)
class Card:
    """One accelerator as an engine sees it (one die of an A3, one half of an MI250X), or a CPU."""

    name: str
    """Canonical and unique: V100-32GB, RTX4090, 910B2, A3."""
    vendor: Vendor
    memory: int
    """Bytes that the framework (torch, torch_npu) reports as total: what engines budget against."""
    driver_memory: int
    """Bytes that nvidia-smi or npu-smi reports: SGLang derives its fraction from it."""
    nominal_gb: float
    bandwidth: float
    """Memory bytes per second."""
    flops: Mapping[str, float] = field(default_factory=dict)
    """Dense operations per second by dtype: float32, float16, bfloat16, float8, int8, float4."""
    capability: tuple[int, int] | None = None
    """CUDA compute capability; (7, 0) is a V100."""
    soc: str | None = None
    """Ascend SoC (910B2) or AMD gfx name."""
    link: Link | None = None
    """Card to card inside a node, the fastest."""
    host_link: Link | None = None
    """PCIe."""
    network: Link | None = None
    """The fabric usual between nodes of such cards; None: no usual one."""
    tdp_watts: float | None = None
    per_node: int = 8
    """What the usual node holds; 1 where a card's memory is its machine's."""
    memory_measured: bool = True
    """False: the framework-visible total was derived from the nominal size, not seen in a log."""
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sm(self) -> int | None:
        """Compute capability as CUDA engines write it: 70, 89, 120."""
        return None if self.capability is None else self.capability[0] * 10 + self.capability[1]


class Rent(NamedTuple):
    """What a machine costs an hour, and whose price that is; None where nobody states it."""

    usd_per_hour: float | None = None
    """Of the cards named, not of the instance that they are a part of."""
    cny_per_hour: float | None = None
    instance: str | None = None
    cards: int | None = None
    """Of all the instances that are rented."""
    share: float | None = None
    """What the cards named are of these."""
    cloud: str | None = None
    region: str | None = None
    date: str | None = None
    source: str = ""

    @property
    def whole_usd_per_hour(self) -> float | None:
        """What the instances cost as a whole."""
        return None if self.usd_per_hour is None else self.usd_per_hour / (self.share or 1.0)


@dataclass(frozen=True)
class Machine:
    """Nodes of equal cards; what `4xV100` or detection gives."""

    card: Card
    cards_per_node: int = 1
    nodes: int = 1
    free_memory: tuple[int, ...] | None = None
    """Free bytes of each card of the first node, where detection saw them; None: assumed empty."""
    host_memory: int | None = None
    network: Link | None = None
    """Between nodes."""
    rent: Rent | None = None
    """Of an instance type or at one's own price; None: what the cheapest instance with such cards costs."""
    origin: str = "named"
    """named, detected, or the instance type's name."""
    notes: tuple[str, ...] = ()
    """What was assumed, as "V100 means V100-32GB"."""

    @property
    def cards(self) -> int:
        """All cards of all nodes."""
        return self.nodes * self.cards_per_node

    @property
    def usd_per_hour(self) -> float | None:
        """The price that was named with the machine, if any."""
        return self.rent.usd_per_hour if self.rent else None
