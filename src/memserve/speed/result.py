"""What a prediction says: three figures, each with the range that 90 % of real measurements fall into."""

from dataclasses import dataclass


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
