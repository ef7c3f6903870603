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

RESERVE = 1.5 * 1024**3
UTILIZATION = 0.9
ROUNDS = 20
CLOSE = 0.002
MANY = 256
"""Requests in flight beyond which published tests send all at once, so that half of them stand ahead."""
BURST = 0.5


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


def capacity(setup: Setup, load: Load, limits: Limits) -> float:
    """Sequences whose cache fits beside the weights; 0 where not even the weights fit."""
    weights = step.weight_bytes(setup, None) / setup.pipeline
    sampler = limits.sampler_bytes * limits.sequences * setup.shape.vocabulary
    free = UTILIZATION * setup.card.memory - weights - sampler - RESERVE
    return max(0.0, free) / max(1.0, step.kv_bytes_per_sequence(setup, load.final))


def time(setup: Setup, load: Load, limits: Limits, concurrency: float | None) -> Timing:
    """Settle how many sequences decode together, then read off what a client sees."""
    room = max(1.0, capacity(setup, load, limits))
    ceiling = {"sequences": float(limits.sequences * setup.pipeline), "memory": room}
    if concurrency is not None:
        ceiling["asked"] = float(concurrency)
    bound = min(ceiling, key=lambda name: ceiling[name])
    inside = max(1.0, ceiling[bound])
    return _settled(setup, load, limits, inside, concurrency, bound)


def _settled(setup: Setup, load: Load, limits: Limits, inside: float, asked: float | None,
             bound: str) -> Timing:  # fmt: skip
    k = setup.constants
    later = max(load.output_tokens - 1, 1e-9)
    prompt = prompt_time(setup, load, limits, inside)
    longest = prompt * max(1.0, limits.tokens / max(load.input_tokens, 1.0))
    others = min((inside - 1) * prompt / max(load.output_tokens, 1.0), longest)
    decoding, tpot, rate = inside, 0.0, 0.0
    for _ in range(ROUNDS):
        own = step.decode(setup, decoding, load.mean)
        tpot = own + others - k.overlap * min(own, others)
        rate = min(
            inside / (prompt + k.first_s + later * tpot), _most(prompt, k.overlap, decoding, own, later)
        )
        fresh = min(inside, max(1.0, rate * later * tpot))
        settled, decoding = abs(fresh - decoding) < CLOSE * decoding, (decoding + fresh) / 2
        if settled:
            break
    ahead = (inside - 1) * (BURST if inside > MANY else k.queue)
    ttft = k.first_s + prompt_time(setup, load, limits, 1) + prompt * ahead + tpot / 2
    if asked is not None and asked > inside:
        ttft += (asked - inside) / rate / 2
    return Timing(ttft, tpot, rate, decoding, bound)


def _most(prompt: float, overlap: float, decoding: float, own: float, later: float) -> float:
    """Requests per second if the replica is never idle: each needs its prompt and its share of the steps."""
    share = later * own / decoding
    return 1 / max(prompt + share - overlap * min(prompt, share), 1e-9)


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
    beside = max(1.0, inside - 1) if setup.constants.mixes and inside > 1 else 0.0
    return tokens / chunk * step.prefill(setup, chunk, seen, beside)
