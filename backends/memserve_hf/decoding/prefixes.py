"""KV of prompts seen before, found again block by block: a shared prefix is computed once."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 32
"""Tokens of one block: only whole blocks are found again."""


@dataclass(eq=False)
class Segment:
    """Consecutive whole blocks that one prefill computed."""

    states: list[tuple[Tensor, Tensor]]
    names: tuple[bytes, ...]
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.size = sum(k.numel() * k.element_size() + v.numel() * v.element_size() for k, v in self.states)


@dataclass(frozen=True)
class Piece:
    """Part of a segment: `count` tokens after the first `skip`."""

    segment: Segment
    skip: int
    count: int


def names(tokens: Sequence[int], shown: tuple[int, bytes] = (-1, b"")) -> tuple[bytes, ...]:
    """A name for each whole block that stands for it and everything before it.

    The last token is left out: its logits are always needed, so it is always computed. `shown`: the place
    from which on tokens stand for something else besides, and its digest.
    """
    place, digest = shown
    found, last = [], b""
    for block in range((len(tokens) - 1) // BLOCK):
        words = array("q", tokens[block * BLOCK : (block + 1) * BLOCK])
        salt = digest if block == place // BLOCK else b""
        last = blake2b(last + salt + words.tobytes(), digest_size=16).digest()
        found.append(last)
    return tuple(found)


class Prefixes:
    """Blocks by name, the segments longest unused dropped first; never more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._blocks: dict[bytes, tuple[Segment, int]] = {}
        self._order: OrderedDict[int, Segment] = OrderedDict()

    def find(self, names: Sequence[bytes]) -> list[Piece]:
        """The longest known run from the start, as pieces of segments."""
        pieces: list[Piece] = []
        for name in names:
            entry = self._blocks.get(name)
            if entry is None:
                break
            segment, at = entry
            last = pieces[-1] if pieces else None
            if last and last.segment is segment and last.skip + last.count == at:
                pieces[-1] = Piece(segment, last.skip, last.count + BLOCK)
            else:
                pieces.append(Piece(segment, at, BLOCK))
                self._order.move_to_end(id(segment))
        return pieces

    def keep(self, names: Sequence[bytes], states: list[tuple[Tensor, Tensor]]) -> None:
        """Remember blocks that were just computed; `states` begin with the first of them."""
        segment = Segment(states, tuple(names))
        if segment.size > self.limit:
            return
        for position, name in enumerate(names):
            self._blocks[name] = (segment, position * BLOCK)
        self._order[id(segment)] = segment
        self.held += segment.size
        while self.held > self.limit:
            self._drop(self._order.popitem(last=False)[1])

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()
        self._order.clear()
        self.held = 0

    def _drop(self, segment: Segment) -> None:
        self.held -= segment.size
        for name in segment.names:
            if self._blocks.get(name, (None,))[0] is segment:
                del self._blocks[name]
