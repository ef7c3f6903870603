"""The KV cache of the sequences in flight: one slot a sequence, a token's place is its position.

Rows need no padding on the left, so a sequence can enter a free slot and leave it at any step. Active
slots stay side by side, which makes every view of them contiguous and free.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("cache", "past_key_values", "cache_params")
"""transformers from 5.24; before it, and code of a model's repository; its Mamba models before 5.24."""


def cache_argument(model: Any) -> str | None:
    """The name of the argument; None for a model that keeps no cache."""
    known = signature(model.forward).parameters
    return next((name for name in NAMES if name in known), None)


GRAIN = 64
"""Positions are allocated in steps of so many tokens, at least."""


class Aim:
    """Which slots and positions the next forward pass writes; shared by all layers."""

    def __init__(self) -> None:
        self.first = 0
        self.rows = 0
        self.end = 0
        self.width = 0
        self.uniform: int | None = None
        self.index: tuple[Tensor, Tensor] | None = None
        self.device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def at(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """(slots, positions) to write, on that device (layers may live on several cards)."""
        if device not in self.device:
            assert self.index is not None
            slots, positions = self.index
            self.device[device] = (slots.to(device), positions.to(device))
        return self.device[device]


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values: [slots, heads, positions, head_dim]."""

    is_sliding = False

    def __init__(self, aim: Aim) -> None:
        super().__init__()
        self.aim = aim

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = _blank(key_states, 0, 0)
        self.values = _blank(value_states, 0, 0)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new states where `aim` says and return the aimed rows up to its end."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        aim = self.aim
        last = aim.first + aim.rows
        self.reserve(last, aim.end)
        keys, values = self.keys[aim.first : last, :, : aim.end], self.values[aim.first : last, :, : aim.end]
        if aim.uniform is not None:
            keys[:, :, aim.uniform : aim.uniform + aim.width] = key_states
            values[:, :, aim.uniform : aim.uniform + aim.width] = value_states
        else:
            slots, positions = aim.at(self.device)
            keys[slots, :, positions] = key_states.transpose(1, 2)
            values[slots, :, positions] = value_states.transpose(1, 2)
        return keys, values

    def reserve(self, slots: int, positions: int) -> None:
        """Make room; grows by a quarter at least, so that copies stay rare."""
        have_slots, have = self.keys.shape[0], self.keys.shape[2]
        if slots <= have_slots and positions <= have:
            return
        new_slots = slots if slots <= have_slots else max(slots, have_slots + have_slots // 2)
        new = have if positions <= have else _rounded(max(positions, have + have // 4))
        self.keys = _grown(self.keys, max(new_slots, have_slots), new)
        self.values = _grown(self.values, max(new_slots, have_slots), new)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.aim.end, 0

    def get_seq_length(self) -> int:
        return self.aim.end - self.aim.width

    def get_max_length(self) -> int:
        return -1


class SlotCache(Cache):  # type: ignore[misc]
    """All layers; passed to the model as its cache."""

    def __init__(self, layers: int) -> None:
        self.aim = Aim()
        super().__init__(layers=[SlotLayer(self.aim) for _ in range(layers)])

    def point(self, first: int, starts: Sequence[int], width: int) -> None:
        """The next pass writes `width` tokens to each of len(starts) slots from `first` on."""
        aim = self.aim
        aim.first, aim.rows, aim.width = first, len(starts), width
        aim.end = max(starts) + width
        aim.uniform = starts[0] if min(starts) == max(starts) else None
        aim.device.clear()
        if aim.uniform is None:
            positions = torch.tensor(starts)[:, None] + torch.arange(width)
            aim.index = (torch.arange(len(starts))[:, None].expand(-1, width), positions)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first `length` tokens into another slot."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.reserve(target + 1, length)
                layer.keys[target, :, :length] = layer.keys[source, :, :length]
                layer.values[target, :, :length] = layer.values[source, :, :length]

    def read(self, slot: int, start: int, end: int) -> list[tuple[Tensor, Tensor]]:
        """A copy of a row's keys and values between two positions, layer by layer."""
        return [
            (layer.keys[slot, :, start:end].clone(), layer.values[slot, :, start:end].clone())
            for layer in self.layers
            if layer.is_initialized
        ]

    def write(self, slot: int, start: int, states: Sequence[tuple[Tensor, Tensor]], skip: int,
              count: int) -> None:  # fmt: skip
        """Put `count` tokens of `states`, from `skip` on, at `start` of a slot."""
        layers = [layer for layer in self.layers if layer.is_initialized]
        for layer, (keys, values) in zip(layers, states, strict=True):
            layer.reserve(slot + 1, start + count)
            layer.keys[slot, :, start : start + count] = keys[:, skip : skip + count]
            layer.values[slot, :, start : start + count] = values[:, skip : skip + count]

    def positions(self, slots: int, positions: int) -> int:
        """What the cache would hold if it were to have room for so many slots of so many positions."""
        layer = next((layer for layer in self.layers if layer.is_initialized), None)
        have = (layer.keys.shape[0], layer.keys.shape[2]) if layer else (0, 0)
        return int(max(have[0], slots) * max(have[1], positions))

    def trim(self, slots: int, positions: int) -> None:
        """Keep so much of every layer and give the rest back."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys = layer.keys[:slots, :, :positions].clone()
                layer.values = layer.values[:slots, :, :positions].clone()

    def clear(self) -> None:
        """Give all memory back."""
        for layer in self.layers:
            layer.keys = layer.values = None
            layer.is_initialized = False


def _blank(like: Tensor, slots: int, positions: int) -> Tensor:
    return like.new_zeros((slots, like.shape[1], positions, like.shape[3]))


def _grown(tensor: Tensor, slots: int, positions: int) -> Tensor:
    grown = _blank(tensor, slots, positions)
    grown[: tensor.shape[0], :, : tensor.shape[2]] = tensor
    return grown


def _rounded(positions: int) -> int:
    return -(-positions // GRAIN) * GRAIN
