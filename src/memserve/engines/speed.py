"""What a backend may tell of its engine's speed: the file speed.json in its folder, as data.

Every key may be left out: what nobody measured is taken from the engines that were, with wider ranges.
"""

from typing import Protocol, TypedDict, runtime_checkable


class LimitRow(TypedDict, total=False):
    """What the scheduler allows at once; of several rows the first that applies counts."""

    sequences: int
    tokens: int
    """Prompt tokens in one step."""
    before: list[int]
    """Only releases before this one, as [0, 8]."""
    memory_gib: float
    """Only cards with at least so much memory."""
    not_card: str
    """Not the card of this name."""
    source: str


class SamplerRow(TypedDict, total=False):
    """Memory set aside for sampling, per sequence and vocabulary entry."""

    bytes: float
    before: list[int]
    source: str


class Generation(TypedDict):
    """Older releases that compute otherwise."""

    name: str
    before: list[int]
    factors: dict[str, float]
    """What each constant is multiplied with."""
    source: str


class HostSpeed(TypedDict):
    """What the host's processor reads and computes."""

    bytes_per_s: list[float]
    """Of its memory: the least, the likely and the most."""
    flops: float
    chunk: int
    """Prompt tokens for which the layers are copied to the cards once."""
    source: str


class EngineSpeed(TypedDict, total=False):
    """How one engine spends its time."""

    source: str
    date: str
    names: list[str]
    """What callers and published tables call the engine, in lower case; tables add versions to a name."""
    every_engine_on: str
    """The maker of cards on which every engine computes as this one does."""
    layerwise: bool
    """It splits layers, not matrices, over its cards."""
    shares_experts: bool
    """It has data-parallel attention over shared experts."""
    small_cache_with: list[str]
    """Data types of weights whose checkpoints carry an 8-bit KV cache."""
    limits: list[LimitRow]
    sampler: list[SamplerRow]
    generations: list[Generation]
    constants: dict[str, float]
    """Fields of `memserve.speed.roofline.layout.Constants`; all others are everybody's."""
    texts_share: float
    """Share of the arithmetic peak that it reaches as an embedder; else that of servers."""
    host: HostSpeed
    """Where some layers stay with the host's processor."""
    rows: int
    """Published measurements that the constants were fitted on."""
    timed_on: list[str]
    """Classes of cards that it was measured on: only there do its own ranges hold."""
    ranges: dict[str, list[float]]
    """Figure, or figure.load -> measured over predicted: 5 %, 95 %, and of how many."""


@runtime_checkable
class Timed(Protocol):
    """A backend that tells how fast its engine is."""

    @property
    def speed(self) -> EngineSpeed | None: ...
