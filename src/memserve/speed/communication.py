"""Bytes and seconds that parallel layouts move over their links, for inference and for training.

Bytes are those that one card sends in a step, with ring algorithms; a link's rate is one way.
"""

from dataclasses import dataclass
from typing import Literal

from memserve.errors import InvalidInput
from memserve.hardware.machine import Link
from memserve.speed.result import MOST_TOKENS, degree, number
from memserve.speed.roofline.shape import Shape

Kind = Literal["data", "tensor", "pipeline", "expert"]
KINDS: tuple[Kind, ...] = ("data", "tensor", "pipeline", "expert")

LINKS = {
    "NVLink2": 150e9, "NVLink3": 300e9, "NVLink4": 450e9, "NVLink5": 900e9, "PCIe3": 16e9, "PCIe4": 32e9,
    "PCIe5": 64e9, "HCCS": 196e9, "Ethernet-10G": 1.25e9, "Ethernet-25G": 3.125e9, "Ethernet-100G": 12.5e9,
    "InfiniBand-200G": 25e9, "InfiniBand-400G": 50e9,
}  # fmt: skip
"""Bytes per second one way: facts/hardware.json (S2, S19) for cards, the standard's rate for networks."""
LATENCY = {"NVLink": 8e-6, "PCIe": 20e-6, "HCCS": 20e-6, "Ethernet": 50e-6, "InfiniBand": 15e-6}
"""Seconds that one collective takes before its first byte, by family of links."""
REACHED = 0.6
"""Share of a link's rate that collectives reach (the fitted constant `link` of data/constants.json)."""


@dataclass(frozen=True)
class Traffic:
    """What one card sends in one step, and how long the link is busy with it."""

    kind: Kind
    cards: int
    link: str
    bytes: float
    messages: float
    seconds: float
    about: str


def inference(shape: Shape, kind: Kind, cards: int, link: str | Link, *, tokens: float,
              bytes_per_value: float = 2.0) -> Traffic:  # fmt: skip
    """One step that computes `tokens` positions: a batch when decoding, a chunk when reading prompts."""
    _checked(kind, cards, tokens)
    row = tokens * shape.hidden * bytes_per_value
    if kind == "data":
        return _timed(kind, cards, link, 0.0, 0.0, "replicas share nothing while they serve")
    if kind == "tensor":
        moved = 2 * shape.layers * row * 2 * (cards - 1) / cards
        return _timed(
            kind, cards, link, moved, 2 * shape.layers, "two all-reduces of the hidden state a layer"
        )
    if kind == "pipeline":
        return _timed(kind, cards, link, row, 1.0, "the hidden state goes to the next stage once")
    return _timed(
        kind, cards, link, *_exchange(shape, cards, row), "each expert layer sends rows out and back"
    )


def training(shape: Shape, kind: Kind, cards: int, link: str | Link, *, tokens: float,
             bytes_per_value: float = 2.0, micro_batches: int = 1) -> Traffic:  # fmt: skip
    """One optimizer step over `tokens` positions per replica: forward, backward, gradients."""
    _checked(kind, cards, tokens, micro_batches)
    row = tokens * shape.hidden * bytes_per_value
    if kind == "data":
        size = parameters(shape) * bytes_per_value * 2 * (cards - 1) / cards
        return _timed(kind, cards, link, size, 1.0, "one all-reduce of all gradients")
    if kind == "tensor":
        moved = 4 * shape.layers * row * 2 * (cards - 1) / cards
        about = "four all-reduces a layer: two forward, two backward"
        return _timed(kind, cards, link, moved, 4 * shape.layers * micro_batches, about)
    if kind == "pipeline":
        about = "the hidden state forward and its gradient backward, once a micro-batch"
        return _timed(kind, cards, link, 2 * row, 2.0 * micro_batches, about)
    moved, messages = _exchange(shape, cards, row)
    return _timed(
        kind, cards, link, 2 * moved, 2 * messages * micro_batches, "out and back, forward and backward"
    )


def table(shape: Shape, cards: int, tokens: float, *, train: bool = False) -> list[Traffic]:
    """Every kind over every link."""
    count = training if train else inference
    kinds = KINDS if shape.experts else KINDS[:3]
    return [count(shape, kind, cards, link, tokens=tokens) for kind in kinds for link in LINKS]


def parameters(shape: Shape) -> float:
    """All parameters of a shape."""
    return shape.mixing + shape.dense + shape.plain + shape.resident + shape.expert * shape.experts


def _exchange(shape: Shape, cards: int, row: float) -> tuple[float, float]:
    if not shape.experts:
        raise InvalidInput(f"{shape.id} has no experts, so there is no expert parallelism")
    sent = row * shape.experts_per_token * (cards - 1) / cards
    return 2 * shape.expert_layers * sent, 2.0 * shape.expert_layers


def _timed(kind: Kind, cards: int, link: str | Link, moved: float, messages: float, about: str) -> Traffic:
    name, rate = _link(link)
    wait = next((value for family, value in LATENCY.items() if name.startswith(family)), 50e-6)
    if cards == 1:
        moved = messages = 0.0
    return Traffic(kind, cards, name, moved, messages, moved / (rate * REACHED) + messages * wait, about)


def _link(link: str | Link) -> tuple[str, float]:
    if not isinstance(link, str):
        return link.kind, link.bytes_per_second
    if link not in LINKS:
        raise InvalidInput(f"unknown link {link!r}", hint=f"known: {', '.join(LINKS)}")
    return link, LINKS[link]


def _checked(kind: str, cards: int, tokens: float, micro_batches: int = 1) -> None:
    if kind not in KINDS:
        raise InvalidInput(f"unknown parallelism {str(kind)[:40]!r}", hint=f"known: {', '.join(KINDS)}")
    for name, count in (("cards", cards), ("micro_batches", micro_batches)):
        degree(name, count, needed=True)
    number("tokens", tokens, above=True, most=MOST_TOKENS)
