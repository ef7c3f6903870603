"""What one forward pass costs, cause by cause, and what waiting in a queue adds."""

from math import log2
from typing import NamedTuple

from memserve.hardware.machine import GIB, Card
from memserve.speed.roofline.layout import Constants, SchedulerLimits
from memserve.speed.roofline.shape import Attention, Format, Shape

SHARP = 4.0
"""How sharply a kernel turns from memory-bound to arithmetic-bound: the exponent of a smooth maximum."""


class Setup(NamedTuple):
    """One replica of a model on its cards, ready to be timed."""

    shape: Shape
    format: Format
    card: Card
    constants: Constants
    tensor: int = 1
    pipeline: int = 1
    kv_bytes: float = 2.0
    link: float = 0.0
    """Bytes per second, one way, between the cards of the tensor group."""
    across: bool = False
    """The tensor group spans boards."""
    sharing: int = 1
    """Data-parallel ranks that share one set of experts with this one."""

    @property
    def flops(self) -> float:
        """Multiply-add rate of the format on one card."""
        return rate(self.card, self.format.dtype)

    @property
    def plain_flops(self) -> float:
        """The 16-bit rate, which attention uses."""
        return rate(self.card, "float16")


def rate(card: Card, dtype: str) -> float:
    """Operations per second in a dtype; where none is known, what the memory bandwidth suggests.

    16 bits are never slower than 32: where the card's are (Pascal), engines multiply in 32.
    """
    for kind in (dtype, "bfloat16", "float16", "float32"):
        found = card.flops.get(kind)
        if found:
            return float(max(found, card.flops.get("float32", 0.0)))
    return card.bandwidth * 60


def soft_max(*times: float) -> float:
    """A maximum with rounded corners: kernels overlap reading and arithmetic, though not wholly."""
    largest = max(times)
    if largest <= 0:
        return 0.0
    return float(largest * sum((t / largest) ** SHARP for t in times) ** (1 / SHARP))


def weight_bytes(setup: Setup, tokens: float | None) -> float:
    """Bytes of weights that a step over so many tokens reads on one card; None: all that are resident."""
    shape, bits = setup.shape, setup.format.bits
    rest = 16.0 if setup.format.experts_only else bits
    experts = shape.experts if tokens is None else shape.touched(tokens * setup.sharing)
    quantized = (shape.mixing + shape.dense) * rest + shape.expert * experts * bits / setup.sharing
    plain = shape.plain + (shape.resident if tokens is None else 0)
    return (quantized + plain * max(bits, 16.0)) / 8 / setup.tensor


def kv_bytes_per_sequence(setup: Setup, tokens: float) -> float:
    """Bytes of cache of one sequence on one card of the tensor group."""
    total = 0.0
    for part in setup.shape.attentions:
        split = 1 if part.latent else min(setup.tensor, max(1, part.kv_heads))
        total += (
            part.layers
            * (part.cached(tokens) * part.elements / split + part.state / setup.tensor)
            * setup.kv_bytes
        )
    return total / setup.pipeline


def decode(setup: Setup, batch: float, context: float) -> float:
    """Seconds of one step that gives each of `batch` sequences its next token."""
    k = setup.constants
    rows = max(1.0, batch / setup.pipeline)
    gpu = _linear(setup, rows, k.gemm) + _attention(setup, rows, context)
    launch = _launch(setup, rows)
    work = soft_max(gpu, launch) if k.overlaps else gpu + launch
    return work + _collectives(setup, rows) + k.step_s + rows * k.sequence_s


def prefill(setup: Setup, tokens: float, context: float, beside: float = 0.0) -> float:
    """Seconds that `tokens` of prompt add to a step; they see `context` tokens before them on average.

    In a step that also decodes `beside` sequences they use the weights that are read anyway.
    """
    k = setup.constants
    linear = _linear(setup, tokens + beside, k.prefill)
    if beside:
        linear -= _linear(setup, beside, k.prefill)
    attention = 0.0
    for part in setup.shape.attentions:
        seen = part.cached(context)
        attention += 2 * part.layers * tokens * seen * _prompt_width(part) / setup.tensor
    arithmetic = attention / (setup.plain_flops * k.attention)
    host = setup.shape.layers * k.prompt_s + setup.shape.expert_layers * k.expert_prompt_s
    exchange = _traffic(setup, tokens) if beside else _collectives(setup, tokens)
    return linear + arithmetic + exchange + host


def _prompt_width(part: Attention) -> float:
    """Multiply-adds per pair of tokens; a prompt's latents are expanded to full keys first."""
    return float(part.heads * (part.key_dim + part.value_dim * (2 if part.latent else 1)))


def _linear(setup: Setup, tokens: float, efficiency: float) -> float:
    """Projections, feed-forward layers, experts and head: weights read against arithmetic done."""
    shape, k = setup.shape, setup.constants
    weight_only = setup.format.weight_only
    read = weight_bytes(setup, tokens) / (
        setup.card.bandwidth * k.weights * (k.unpack if weight_only else 1.0)
    )
    dense = (shape.mixing + shape.dense + shape.plain) * tokens
    routed = shape.expert * shape.experts_per_token * tokens
    fast = setup.flops * efficiency * (k.unpack_gemm if weight_only else 1.0)
    slow = setup.plain_flops * efficiency if setup.format.experts_only else fast
    done = 2 * (dense / slow + routed / (fast * k.experts)) / setup.tensor
    return soft_max(read, done)


def _attention(setup: Setup, rows: float, context: float) -> float:
    """The cache read against the arithmetic of attention."""
    k = setup.constants
    read = rows * kv_bytes_per_sequence(setup, context) * setup.pipeline / (setup.card.bandwidth * k.cache)
    done = 0.0
    for part in setup.shape.attentions:
        done += 2 * part.layers * rows * part.cached(context) * part.width / setup.tensor
    return soft_max(read, done / (setup.plain_flops * k.gemm))


def _launch(setup: Setup, rows: float) -> float:
    """The part of each layer that no bandwidth explains: launches, tails, small kernels."""
    k = setup.constants
    quantized = k.quantized_layer_s if setup.format.bits < 16 else 0.0
    latent = sum(part.layers for part in setup.shape.attentions if part.latent)
    layers = setup.shape.layers * (k.layer_s + quantized)
    return layers + setup.shape.expert_layers * k.expert_s + latent * k.latent_s


def _collectives(setup: Setup, rows: float) -> float:
    """Two all-reduces a layer over the real link, exchanges of shared experts, a hop per pipeline stage."""
    k, shape = setup.constants, setup.shape
    waits = setup.pipeline - 1.0
    if setup.tensor > 1:
        waits += 2 * shape.layers
    if setup.sharing > 1:
        waits += 2 * shape.expert_layers
    return waits * k.reduce_s + _traffic(setup, rows)


def _traffic(setup: Setup, tokens: float) -> float:
    """Seconds that the bytes of all-reduces and expert exchanges spend on the link."""
    shape, moved = setup.shape, 0.0
    if setup.tensor > 1:
        moved += 2 * shape.layers * tokens * shape.hidden * 2 * 2 * (setup.tensor - 1) / setup.tensor
    if setup.sharing > 1:
        moved += shape.expert_layers * tokens * shape.experts_per_token * shape.hidden * 3 / setup.tensor
    return moved / (setup.link * setup.constants.link) if moved else 0.0


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
    if concurrency is None or not _burst(concurrency):
        return found
    fewer = _settled(setup, load, limits, min(inside, MANY), MANY, bound)
    rate = _at_once(setup, load, concurrency, found.requests_per_s, fewer.requests_per_s)
    return found._replace(requests_per_s=rate)


def _settled(setup: Setup, load: Load, limits: SchedulerLimits, inside: float, asked: float | None,
             bound: str) -> Timing:  # fmt: skip
    k = setup.constants
    later = max(load.output_tokens - 1, 1e-9)
    prompt = prompt_time(setup, load, limits, inside)
    longest = prompt * max(1.0, limits.tokens / max(load.input_tokens, 1.0))
    others = k.stall * min((inside - 1) * prompt / max(load.output_tokens, 1.0), longest)
    decoding, tpot, rate = inside, 0.0, 0.0
    for _ in range(ROUNDS):
        own = decode(setup, decoding, load.mean)
        tpot = own + others - k.overlap * min(own, others)
        rate = min(
            inside / (prompt + k.first_s + later * tpot), _most(prompt, k.overlap, decoding, own, later)
        )
        fresh = min(inside, max(1.0, rate * later * tpot))
        settled, decoding = abs(fresh - decoding) < CLOSE * decoding, (decoding + fresh) / 2
        if settled:
            break
    ahead = (inside - 1) * (max(BURST, k.queue) if inside > MANY else k.queue)
    slowed = 1 + _burst(asked) * (k.crowd - 1)
    ttft = k.first_s + prompt_time(setup, load, limits, 1) + prompt * slowed * ahead + tpot / 2
    if asked is not None and asked > inside:
        ttft += (asked - inside) / rate / 2
    stall = _stall(k, load, inside, prompt, longest)
    at_once = own + stall - k.overlap * min(own, stall)
    tpot += _burst(asked) * max(0.0, at_once - tpot)
    return Timing(ttft, tpot, rate, decoding, bound)


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


def _stall(k: Constants, load: Load, inside: float, prompt: float, longest: float) -> float:
    """Mean seconds per token that answers wait for the prompts behind them if all are sent at once.

    The mean is over requests, so a short answer's wait weighs most. Where steps mix, a token waits for one
    chunk at most.
    """
    unequal = 1 + (k.short - 1) * _unequal(load)
    stall = BURST * unequal * (inside - 1) * prompt / max(load.output_tokens, 1.0)
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
    seen = load.prefix_tokens + tokens / 2
    beside = max(1.0, inside - 1) if setup.constants.mixes and inside > 1 else 0.0
    return tokens / chunk * prefill(setup, chunk, seen, beside)
