"""From the time of a step to what a client sees: TTFT with queueing, TPOT, throughput.

A closed loop: `concurrency` requests are always in flight; each reads its prompt, then decodes. Every
second is shared between the prompts of new requests and the decoding of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memserve.speed import step

if TYPE_CHECKING:
    from memserve.speed.engines import Limits
    from memserve.speed.step import Setup

RESERVE = 2 * 1024**3
UTILIZATION = 0.9
ROUNDS = 12


@dataclass(frozen=True)
class Load:
    """What every request of a test asks for."""

    input_tokens: float
    output_tokens: float
    prefix_tokens: float = 0.0
    """Prompt tokens already in the cache: kept and read, not computed."""

    @property
    def final(self) -> float:
        """Tokens of a finished sequence."""
        return self.prefix_tokens + self.input_tokens + self.output_tokens

    @property
    def mean(self) -> float:
        """Tokens that a sequence holds on average while it decodes."""
        return self.prefix_tokens + self.input_tokens + self.output_tokens / 2


@dataclass(frozen=True)
class Timing:
    """One replica under load, in seconds."""

    ttft: float
    tpot: float
    requests_per_s: float
    batch: float
    """Sequences that decode together."""
    bound: str
    """What keeps the batch from growing: asked, sequences, memory, tokens."""


def capacity(setup: Setup, load: Load) -> float:
    """Sequences whose cache fits beside the weights; 0 where not even the weights fit."""
    stages = setup.tensor * setup.pipeline
    free = UTILIZATION * setup.card.memory - step.weight_bytes(setup, None) / setup.pipeline - RESERVE
    return max(0.0, free) / max(1.0, step.kv_bytes_per_sequence(setup, load.final)) if stages else 0.0


def time(setup: Setup, load: Load, limits: Limits, concurrency: float | None) -> Timing:
    """Settle how many sequences decode together, then read off what a client sees."""
    room = max(1.0, capacity(setup, load))
    ceiling = {"sequences": float(limits.sequences * setup.pipeline), "memory": room}
    if concurrency is not None:
        ceiling["asked"] = float(concurrency)
    bound = min(ceiling, key=lambda name: ceiling[name])
    inside = max(1.0, ceiling[bound])
    return _settled(setup, load, limits, inside, concurrency, bound)


def _settled(setup: Setup, load: Load, limits: Limits, inside: float, asked: float | None,
             bound: str) -> Timing:  # fmt: skip
    k = setup.constants
    share = k.share if bound == "asked" else 1.0
    later = max(load.output_tokens - 1, 1e-9)
    prompt = prompt_time(setup, load, limits, inside)
    decoding = inside
    tpot = 0.0
    for _ in range(ROUNDS):
        shared = share * max(decoding - 1, 0) * prompt / max(load.output_tokens, 1)
        tpot = step.decode(setup, decoding, load.mean) + shared
        served = inside / (prompt + k.first_s + later * tpot)
        fresh = min(inside, max(1.0, served * later * tpot))
        decoding = (decoding + fresh) / 2
    ttft = k.first_s + prompt_time(setup, load, limits, 1) + prompt * k.queue * (inside - 1) + tpot / 2
    rate = inside / (ttft + later * tpot)
    if asked is not None and asked > inside:
        ttft += (asked - inside) / rate / 2
    return Timing(ttft, tpot, rate, decoding, bound)


def prompt_time(setup: Setup, load: Load, limits: Limits, inside: float) -> float:
    """Seconds that one prompt takes of the replica, read in chunks of the scheduler's size.

    Prompts that arrive in the same step share its fixed costs.
    """
    tokens = load.input_tokens
    if tokens <= 0:
        return 0.0
    together = max(1.0, inside / max(load.output_tokens, 1.0))
    chunk = min(tokens * together, float(limits.tokens))
    seen = load.prefix_tokens + tokens / 2
    return tokens / chunk * step.prefill(setup, chunk, seen)
