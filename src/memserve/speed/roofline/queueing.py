"""What waiting in a queue adds: requests in flight, the first token, the whole machine."""

from math import log2
from typing import NamedTuple

from memserve.hardware.machine import GIB
from memserve.speed.roofline.layout import Constants, SchedulerLimits
from memserve.speed.roofline.step import (
    Setup,
    decode,
    first_prefill,
    kv_bytes_per_sequence,
    prefill,
    weight_bytes,
)

RESERVE = 1.5 * GIB
UTILIZATION = 0.9
ROUNDS = 20
CLOSE = 0.002
MANY = 256
"""Requests in flight beyond which published tests send all at once; at twice as many all of them do."""
BURST = 0.5
"""Of what is sent at once, half of the prompts stand before a request on average, and half behind it."""


class Load(NamedTuple):
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


class Timing(NamedTuple):
    """One replica under load, in seconds."""

    ttft: float
    tpot: float
    requests_per_s: float
    batch: float
    """Sequences that decode together."""
    bound: str
    """What keeps the batch from growing: asked, sequences, memory, tokens."""


def capacity(setup: Setup, load: Load, limits: SchedulerLimits) -> float:
    """Sequences whose cache fits beside the weights; 0 where not even the weights fit."""
    weights = weight_bytes(setup, None) / setup.pipeline
    sampler = limits.sampler_bytes * limits.sequences * setup.shape.vocabulary
    free = UTILIZATION * setup.card.memory - weights - sampler - RESERVE
    held = load.final if setup.constants.reserves else load.mean
    return max(0.0, free) / max(1.0, kv_bytes_per_sequence(setup, held))


def time(setup: Setup, load: Load, limits: SchedulerLimits, concurrency: float | None) -> Timing:
    """Settle how many sequences decode together, then read off what a client sees."""
    held = max(1.0, capacity(setup, load, limits))
    ceiling = {"sequences": float(limits.sequences * setup.pipeline), "memory": held}
    if concurrency is not None:
        ceiling["asked"] = float(concurrency)
    bound = min(ceiling, key=lambda name: ceiling[name])
    inside = max(1.0, ceiling[bound])
    found = _settled(setup, load, limits, inside, concurrency, bound)
    if concurrency is None:
        return found
    if not _burst(concurrency):
        circle = found.ttft + max(load.output_tokens - 1, 1e-9) * found.tpot
        return found._replace(requests_per_s=min(found.requests_per_s, concurrency / circle))
    fewer = _settled(setup, load, limits, min(inside, MANY), MANY, bound)
    rate = _at_once(setup, load, concurrency, found.requests_per_s, fewer.requests_per_s)
    return found._replace(requests_per_s=rate)


def _settled(setup: Setup, load: Load, limits: SchedulerLimits, inside: float, asked: float | None,
             bound: str) -> Timing:  # fmt: skip
    k = setup.constants
    later = max(load.output_tokens - 1, 1e-9)
    prompt = prompt_time(setup, load, limits, inside)
    first, crowded = _first_prompts(setup, load, limits, inside)
    longest = prompt * max(1.0, limits.tokens / max(load.input_tokens, 1.0))
    others = k.stall * min((inside - 1) * prompt / max(load.output_tokens, 1.0), longest)
    running = min(inside, k.slots)
    decoding, tpot, rate = running, 0.0, 0.0
    for _ in range(ROUNDS):
        own = decode(setup, decoding, load.mean)
        tpot = own + others - k.overlap * min(own, others)
        reading = max(prompt, first) + k.first_s + k.polls * tpot
        rate = min(running / (reading + later * tpot), _most(prompt, k.overlap, decoding, own, later))
        fresh = min(running, max(1.0, rate * later * tpot))
        settled, decoding = abs(fresh - decoding) < CLOSE * decoding, (decoding + fresh) / 2
        if settled:
            break
    waits = crowded * (inside - 1) * max(k.queue, _burst(asked) * BURST * k.crowd)
    if asked is not None and asked > inside:
        waits += _outside(asked, inside) / rate
    if running == inside:
        waits *= 1 + _burst(asked) * (k.unequal - 1)
    ttft = max(k.first_s + k.polls * tpot + first + waits, _alone(setup, load, limits))
    stall, held = _stall(k, load, inside, prompt, longest), (inside - running) / rate / later
    stall = max(stall, BURST * _spread(k, load) * held)
    at_once = own + stall - k.overlap * min(own, stall)
    tpot += held + _burst(asked) * max(0.0, at_once - tpot - held)
    return Timing(ttft, tpot, rate, decoding, bound)


def _alone(setup: Setup, load: Load, limits: SchedulerLimits) -> float:
    """Seconds until a lone request's first token: company makes it no faster."""
    k, (first, _) = setup.constants, _first_prompts(setup, load, limits, 1.0)
    return k.first_s + k.polls * decode(setup, 1.0, load.mean) + first


def _outside(asked: float, inside: float) -> float:
    """Answers that end before a waiting request is let in."""
    return (asked - inside) * (1 - _burst(asked) * (1 - (asked - inside) / asked / 2))


def _at_once(setup: Setup, load: Load, asked: float, steady: float, least: float) -> float:
    """Requests per second of a test that sends all at once: at its end the longest answers run alone.

    It is never less than what fewer requests, kept in flight, would get.
    """
    k = setup.constants
    tail = (k.tail - 1) * _unequal(load) * load.output_tokens * decode(setup, 1, load.mean)
    drained = asked / (asked / steady + tail)
    return min(steady, max(least, steady + _burst(asked) * (drained - steady)))


def _burst(asked: float | None) -> float:
    """How far a test of so many requests sends them all at once: 0 to MANY, 1 from twice that."""
    return 0.0 if asked is None else min(1.0, max(0.0, log2(max(asked, 1.0) / MANY)))


def _unequal(load: Load) -> float:
    """How far answers differ in length: those far shorter than their prompts are cut by a limit."""
    return min(1.0, load.output_tokens / max(load.input_tokens, 1.0))


def _spread(k: Constants, load: Load) -> float:
    """How much more a wait weighs in the mean over requests than over tokens."""
    return 1 + (k.short - 1) * _unequal(load)


def _stall(k: Constants, load: Load, inside: float, prompt: float, longest: float) -> float:
    """Mean seconds per token that answers wait for the prompts behind them if all are sent at once.

    The mean is over requests, so a short answer's wait weighs most. Where steps mix, a token waits for one
    chunk at most.
    """
    stall = BURST * _spread(k, load) * (inside - 1) * prompt / max(load.output_tokens, 1.0)
    return k.crowd * (min(stall, longest) if k.mixes else stall)


def _most(prompt: float, overlap: float, decoding: float, own: float, later: float) -> float:
    """Requests per second if the replica is never idle: each needs its prompt and its share of the steps."""
    share = later * own / decoding
    return 1 / max(prompt + share - overlap * min(prompt, share), 1e-9)


def prompt_time(setup: Setup, load: Load, limits: SchedulerLimits, inside: float) -> float:
    """Seconds that one prompt takes of the replica, read in chunks of the scheduler's size.

    Prompts that arrive in the same step share its fixed costs.
    """
    tokens = load.input_tokens
    if tokens <= 0:
        return 0.0
    together = max(1.0, inside / max(load.output_tokens, 1.0))
    chunk = min(tokens * together, float(limits.tokens))
    return tokens / chunk * prefill(setup, chunk, load.prefix_tokens + tokens / 2, _beside(setup, inside))


def _first_prompts(setup: Setup, load: Load, limits: SchedulerLimits, inside: float) -> tuple[float, float]:
    """Seconds until a prompt read alone gives its first token, and those of each in a crowd read together."""
    tokens, found = load.input_tokens, []
    if tokens <= 0:
        return 0.0, 0.0
    for together in (1.0, max(1.0, min(inside, limits.tokens / tokens))):
        chunk = min(tokens * together, float(limits.tokens))
        seen = load.prefix_tokens + tokens / 2
        found.append(tokens / chunk * first_prefill(setup, chunk, seen, _beside(setup, inside)))
    return found[0], found[1]


def _beside(setup: Setup, inside: float) -> float:
    """Sequences that decode in a step that reads a prompt."""
    return max(1.0, inside - 1) if setup.constants.mixes and inside > 1 else 0.0
