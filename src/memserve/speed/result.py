"""What a prediction says: three figures with their ranges; and the numbers that callers pass, checked."""

from dataclasses import dataclass
from numbers import Real

from memserve.errors import InvalidInput

MOST_TOKENS = 1e12
"""Beyond it no request, no cache and no float is meant."""
MOST_CARDS = 1_000_000


def number(name: str, value: object, *, least: float = 0.0, above: bool = False,
           most: float = float("inf")) -> float:  # fmt: skip
    """The value as a float if it is a number from `least` (or `above` it) to `most`."""
    found = _float(value)
    if found is None or not least <= found < float("inf") or (above and found == least):
        bounds = "a positive number" if above else "zero or a positive number"
        raise InvalidInput(f"{name} must be {bounds}, not {_shown(value)}")
    if found > most:
        raise InvalidInput(f"{name} must be at most {most:g}, not {_shown(value)}")
    return found


def degree(name: str, value: object, *, needed: bool = False) -> None:
    """Refuses what is no whole number of cards, stages or sequences; None leaves the choice open."""
    if value is None and not needed:
        return
    found = _float(value)
    if found is None or not 1 <= found <= MOST_CARDS or found != int(found):
        raise InvalidInput(f"{name} must be a whole number above 0, not {_shown(value)}")


def word(name: str, value: object, *, needed: bool = False) -> None:
    """Refuses what is no word; None leaves the choice open unless the word is needed."""
    if (value is None and not needed) or isinstance(value, str):
        return
    raise InvalidInput(f"{name} must be a word, not {_shown(value)}")


def _shown(value: object) -> str:
    """A value as an error shows it; numbers too long to print are cut by their kind."""
    try:
        return repr(value)[:40]
    except ValueError:
        return f"a {type(value).__name__} of thousands of digits"


def _float(value: object) -> float | None:
    if not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


@dataclass(frozen=True)
class Range:
    """low <= likely <= high."""

    low: float
    likely: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """As the planner prints it."""
        return {"low": self.low, "likely": self.likely, "high": self.high}


@dataclass(frozen=True)
class Speed:
    """How fast a model would answer. Throughput is that of the whole machine."""

    ttft_ms: Range
    """From a request's arrival to its first token, queueing included."""
    tpot_ms: Range
    """Mean time per output token after the first."""
    output_tokens_per_s: Range
    at_most: bool = False
    """The engine or the card was never measured: the figures are what the hardware allows at most."""
    batch: float = 1.0
    """Sequences that one replica decodes together."""
    bound: str = "asked"
    """What limits that batch: asked, sequences (the scheduler's limit) or memory (the KV cache)."""
    notes: tuple[str, ...] = ()
    """How the layout was read, and what was assumed."""

    def to_dict(self) -> dict[str, dict[str, float]]:
        """The three figures, as the planner's JSON has them."""
        return {
            "ttft_ms": self.ttft_ms.to_dict(),
            "tpot_ms": self.tpot_ms.to_dict(),
            "output_tokens_per_s": self.output_tokens_per_s.to_dict(),
        }
