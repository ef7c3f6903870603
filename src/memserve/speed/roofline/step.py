"""What one forward pass costs, cause by cause."""

from typing import NamedTuple

from memserve.hardware.machine import Card
from memserve.speed.roofline.layout import Constants
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
    shape, bits, rest = setup.shape, setup.format.bits, setup.format.others
    experts = (
        shape.experts if tokens is None else shape.touched(tokens * setup.sharing, setup.constants.evenness)
    )
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
    host = setup.shape.layers * k.prompt_s + setup.shape.expert_layers * k.expert_prompt_s
    return _prompt_work(setup, tokens, context, beside) + host


def first_prefill(setup: Setup, tokens: float, context: float, beside: float) -> float:
    """Seconds until such a step gives its first token.

    The host launches it kernel by kernel while the card works, and the slower of both counts. 4-bit floats
    have one kernel for all experts.
    """
    k, shape = setup.constants, setup.shape
    apart = 0 if setup.format.dtype == "float4" else shape.expert_layers
    latents = sum(part.layers for part in shape.attentions if part.latent)
    host = shape.layers * k.first_layer_s + apart * k.first_expert_s + latents * k.first_latent_s
    return soft_max(k.reads * _prompt_work(setup, tokens, context, beside), host)


def _prompt_work(setup: Setup, tokens: float, context: float, beside: float) -> float:
    k = setup.constants
    linear = _linear(setup, tokens + beside, k.prefill)
    if beside:
        linear -= _linear(setup, beside, k.prefill)
    attention = 0.0
    for part in setup.shape.attentions:
        seen = part.cached(context)
        attention += 2 * part.layers * tokens * seen * _prompt_width(part) / setup.tensor
    arithmetic = attention / (setup.plain_flops * k.attention)
    exchange = _traffic(setup, tokens) if beside else _collectives(setup, tokens)
    return linear + arithmetic + exchange


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
