"""How a model is spread over a machine when the caller names only cards and, perhaps, a tensor degree."""

from math import isqrt
from typing import NamedTuple

from memserve.engines.speed import EngineSpeed
from memserve.hardware.machine import Machine
from memserve.speed.roofline.shape import Format, Shape

BOARD = 8
"""Cards that one board or host links directly, where the card's own data say nothing else."""
DOMAINS = {"GB200": 72, "GB300": 72, "A3": 16}
WIDE = 16
"""Tensor ranks that engines still give one copy of the attention."""
FILL = 0.9


class Spread(NamedTuple):
    """tensor x pipeline cards hold one replica; `experts` replicas share one set of experts."""

    tensor: int
    pipeline: int
    replicas: int
    experts: int = 1
    across: bool = False
    """The tensor group spans boards."""
    notes: tuple[str, ...] = ()


def spread(shape: Shape, machine: Machine, form: Format, engine: EngineSpeed, tensor: int | None,
           pipeline: int | None = None, data: int | None = None, most: bool = False) -> Spread:  # fmt: skip
    """The layout that engines take by default, and what can be read into a layout that is named.

    `most`: the layout is left open by somebody who asks for the most that the machine can serve.
    """
    if pipeline or data:
        return _named(machine, tensor, pipeline or 1, data)
    if tensor is None:
        shared = _sharing(shape, machine, form, engine) if most else None
        if shared:
            return shared
        return _default(shape, machine, form, engine)
    cards = machine.cards
    domain = DOMAINS.get(machine.card.name, BOARD)
    if shape.experts and machine.nodes == 1 and min(tensor, cards) > domain:
        return _product(tensor, cards)
    tensor = max(1, min(tensor, cards))
    if shape.experts and (tensor > WIDE or (tensor > BOARD and _heads(shape) % tensor)):
        return _wide(tensor, cards)
    if engine.get("layerwise"):
        return Spread(tensor, max(1, cards // tensor), 1)
    return _filled(shape, machine, form, tensor)


def _named(machine: Machine, tensor: int | None, pipeline: int, data: int | None) -> Spread:
    """Exactly what the caller says; a missing degree takes the cards that are left."""
    if tensor is None:
        tensor = max(1, machine.cards // (pipeline * (data or 1)))
    replicas = data or max(1, machine.cards // (tensor * pipeline))
    return Spread(max(1, tensor), max(1, pipeline), max(1, replicas), across=tensor > machine.cards_per_node)


def _filled(shape: Shape, machine: Machine, form: Format, tensor: int) -> Spread:
    """A pipeline over the other cards if the weights need them, replicas over what is left."""
    left = max(1, machine.cards // tensor)
    pipeline = 1
    while pipeline < left and not fits(shape, machine, form, tensor * pipeline):
        pipeline *= 2
    pipeline = min(pipeline, left)
    across = tensor > min(DOMAINS.get(machine.card.name, BOARD), machine.cards_per_node)
    if fits(shape, machine, form, tensor * pipeline):
        return Spread(tensor, pipeline, max(1, left // pipeline), across=across)
    return _too_large(shape, machine, form, Spread(tensor, pipeline, 1, across=across))


def fits(shape: Shape, machine: Machine, form: Format, cards: int) -> bool:
    """Whether the weights alone go into so many cards."""
    return stored_bytes(shape, form) / cards < FILL * machine.card.memory


def stored_bytes(shape: Shape, form: Format) -> float:
    """Bytes of all weights."""
    rest = max(form.bits, 16.0) if form.experts_only else form.bits
    quantized = (shape.mixing + shape.dense) * rest + shape.expert * shape.experts * form.bits
    return (quantized + (shape.plain + shape.resident) * max(16.0, form.bits)) / 8


def _default(shape: Shape, machine: Machine, form: Format, engine: EngineSpeed) -> Spread:
    """All cards of a node in one tensor group, as far as the heads divide; further nodes in a pipeline."""
    if engine.get("layerwise"):
        return Spread(1, machine.cards, 1)
    tensor = 1
    while tensor * 2 <= machine.cards_per_node and _heads(shape) % (tensor * 2) == 0:
        tensor *= 2
    return spread(shape, machine, form, engine, tensor)


def _sharing(shape: Shape, machine: Machine, form: Format, engine: EngineSpeed) -> Spread | None:
    """Data-parallel attention over shared experts: no tensor rank divides a latent, so it holds most."""
    cards = machine.cards_per_node
    latent = all(part.latent for part in shape.attentions) and shape.experts
    if cards == 1 or not latent or not engine.get("shares_experts"):
        return None
    own = stored_bytes(shape, form) - shape.expert * shape.experts * form.bits / 8
    held = own + shape.expert * shape.experts * form.bits / 8 / cards
    if held > FILL * FILL * machine.card.memory:
        return None
    note = f"read as {cards} data-parallel ranks that share the experts, as for the most requests"
    return Spread(1, 1, machine.cards, cards, notes=(note,))


def _heads(shape: Shape) -> int:
    return max((part.heads for part in shape.attentions), default=1) or 1


def _product(tensor: int, cards: int) -> Spread:
    """More tensor ranks than any board has: published tables write tensor x expert ranks of one group so."""
    side = max(1, isqrt(min(tensor, cards)))
    note = f"tensor {tensor} on one host is read as {side} tensor x {side} expert ranks over {side} cards"
    return Spread(side, 1, 1, notes=(note,))


def _wide(tensor: int, cards: int) -> Spread:
    """Wider than a board: engines keep attention whole per card and spread only the experts."""
    note = f"tensor {tensor} is read as {tensor} data-parallel ranks that share the experts"
    return Spread(1, 1, max(1, cards // tensor) * tensor, tensor, notes=(note,))


def _too_large(shape: Shape, machine: Machine, form: Format, found: Spread) -> Spread:
    """Weights beyond the named cards: read as one rank of a group that shares experts, if there are any."""
    if not shape.experts:
        return Spread(
            found.tensor, found.pipeline, 1, across=found.across,
            notes=("the weights do not fit these cards",),
        )  # fmt: skip
    cards = found.tensor * found.pipeline
    group = 2
    while group < 64 and not fits(shape, machine, form, cards * group):
        group *= 2
    note = f"the weights do not fit: read as one of {group} data-parallel ranks that share the experts"
    return Spread(found.tensor, found.pipeline, 1, group, found.across, (note,))
