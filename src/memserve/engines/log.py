"""What a backend may tell of its engine's start-up log: the file log.json in its folder, as data."""

from typing import Literal, Protocol, TypedDict, runtime_checkable


class LogLine(TypedDict):
    """One line of a log and the figure in it."""

    field: str
    """A field of `memserve.memory.calibration.StartupLog`, or a part that one is made of."""
    pattern: str
    """A regular expression whose first group is the figure."""
    pick: Literal["max", "min", "first", "last", "sum_of_rank"]
    """Over several lines (ranks); sum_of_rank adds the pools of one rank."""
    unit: Literal["gib", "mib", "count", "number", "text"]
    printed_by: str
    """The releases that print it."""


class LogFormat(TypedDict):
    """How one engine's start-up log is read."""

    engine: str
    """The engine's name, as people write it."""
    recognised_by: str | None
    """A regular expression that only logs of this engine hold; None: known by its figures alone."""
    example: str
    """A line that every such log holds: shown where a log cannot be read."""
    block_size: int
    """Tokens of a block of the KV cache, where the log does not say."""
    lines: list[LogLine]
    """In the order of their weight: of two lines with the same field the earlier counts."""


@runtime_checkable
class Logged(Protocol):
    """A backend whose engine's log can be read."""

    @property
    def log(self) -> LogFormat | None: ...
