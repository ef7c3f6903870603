"""Feeds a model: prompts in, one more token for every row in flight, rows out; all rows in one pass."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

import torch

from memserve_hf.decoding.prefixes import BLOCK, Prefixes
from memserve_hf.decoding.row import Job, Row
from memserve_hf.decoding.slots import SlotCache, cache_argument

if TYPE_CHECKING:
    from torch import Tensor


class Head:
    """A hook before the output head that keeps, of each row, the positions of the current pass."""

    def __init__(self, model: Any) -> None:
        self._module = model.get_output_embeddings()
        self._keep: Tensor | None = None
        if self._module is not None:
            self._hook = self._module.register_forward_pre_hook(self._select)

    @contextmanager
    def keeping(self, positions: Sequence[Sequence[int]]) -> Iterator[None]:
        """During this pass the head sees, of row i, positions[i]; all rows keep equally many."""
        self._keep = torch.tensor(positions)
        try:
            yield
        finally:
            self._keep = None

    def trim(self, logits: Tensor, positions: Sequence[Sequence[int]]) -> Tensor:
        """The logits at the asked positions, where the model has no head to hook."""
        if logits.shape[1] == len(positions[0]):
            return logits
        return _pick(logits, torch.tensor(positions))

    def _select(self, _module: Any, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._keep is None or not args or args[0].dim() != 3:
            return None
        return (_pick(args[0], self._keep), *args[1:])


def _pick(states: Tensor, keep: Tensor) -> Tensor:
    index = keep.to(states.device)[:, :, None].expand(-1, -1, states.shape[-1])
    return states.gather(1, index)


FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
KINDS = frozenset({FULL, SLIDING, CHUNKED})


class Masks:
    """Builds what one model takes as `attention_mask`: one 4D tensor, or one for each kind of layer.

    Rows stand at different positions: a slot's index is its token's position.
    """

    def __init__(self, config: Any, dtype: torch.dtype, *, boolean: bool) -> None:
        self.kinds = sorted(set(layer_kinds(config)))
        self.window = getattr(config, "sliding_window", None)
        self.chunk = getattr(config, "attention_chunk_size", None)
        self.dtype = dtype
        self.boolean = boolean

    def build(self, positions: Tensor, end: int) -> Any:
        """The mask for queries at `positions` [rows, width] over keys 0..end-1."""
        keys = torch.arange(end, device=positions.device)
        made = {kind: self._finish(self._allowed(kind, positions[:, :, None], keys)) for kind in self.kinds}
        return made if len(made) > 1 else next(iter(made.values()))

    def _allowed(self, kind: str, queries: Tensor, keys: Tensor) -> Tensor:
        seen = keys <= queries
        if kind == SLIDING and self.window:
            return seen & (keys > queries - self.window)
        if kind == CHUNKED and self.chunk:
            return seen & (keys // self.chunk == queries // self.chunk)
        return seen

    def _finish(self, allowed: Tensor) -> Tensor:
        allowed = allowed[:, None]
        if self.boolean:
            return allowed
        lowest = torch.finfo(self.dtype).min
        blank = torch.zeros((), dtype=self.dtype, device=allowed.device)
        return torch.where(allowed, blank, blank + lowest)


def layer_kinds(config: Any) -> list[str]:
    """The attention kind of every layer, as transformers' own caches see it."""
    from transformers.cache_utils import get_layer_types_and_kwargs

    kinds, _ = get_layer_types_and_kwargs(config)
    return [str(kind) for kind in kinds]


MASK_ELEMENTS = 1 << 26
"""A prefill pass is narrowed until its mask has at most so many elements."""


class Stepper(Protocol):
    """What the loop asks of a model. Logits are [rows, vocabulary], in the rows' order."""

    @property
    def rows(self) -> list[Row]:
        """What is in flight."""
        ...

    def prefill(self, rows: Sequence[Row]) -> Tensor:
        """Take rows in (they join the end of `rows`) and return the logits after each prompt."""
        ...

    def clone(self, row: Row) -> None:
        """Let `row` join beside a row of the same job that is in flight, sharing its prompt's work."""
        ...

    def decode(self) -> Tensor:
        """Feed every row its last token."""
        ...

    def drop(self, row: Row) -> None:
        """Take a row out."""
        ...

    def ahead(self, job: Job) -> int:
        """Tokens of the job's prompt that are already computed."""
        ...

    def clear(self) -> None:
        """Let go of all rows and all memory."""
        ...


def placed(tensor: Tensor, model: Any, device: torch.device) -> Tensor:
    """Where the model is, in its dtype."""
    return tensor.to(device, model.dtype if tensor.is_floating_point() else None)


def held_back(model: Any, moved: Any = None) -> Any:
    """How far pictures move positions: Qwen's models hold it for whoever asked last. `moved` replaces it."""
    inner = getattr(model, "model", None)
    held = getattr(inner, "rope_deltas", None)
    if held is not None or moved is not None:
        inner.rope_deltas = moved  # type: ignore[union-attr]
    return held


class Slots:
    """All rows in one cache, one pass for all of them."""

    def __init__(self, model: Any, head: Head, *, device: torch.device, width: int,
                 prefix_bytes: int) -> None:  # fmt: skip
        self.model, self.head, self.device, self.width = model, head, device, width
        config = model.config.get_text_config(decoder=True)
        self.context = getattr(config, "max_position_embeddings", None) or sys.maxsize
        kind = getattr(config, "_attn_implementation", "sdpa")
        self.flash = kind.startswith("flash")
        boolean = kind == "sdpa" and device.type != "cpu"
        self.masks = Masks(config, model.dtype, boolean=boolean)
        self.cache = SlotCache(config.num_hidden_layers)
        self.argument = str(cache_argument(model))
        self.prefixes = Prefixes(prefix_bytes)
        self.shifts: dict[bytes, int] = {}
        """Of the pictures seen lately, by their digests."""
        self.rows: list[Row] = []
        self.most = sys.maxsize
        """Positions of all slots together that the memory holds."""

    def ahead(self, job: Job) -> int:
        return sum(piece.count for piece in self.prefixes.find(job.names))

    def prefill(self, rows: Sequence[Row]) -> Tensor:
        self._make_room(rows)
        first = len(self.rows)
        for slot, row in enumerate(rows, first):
            row.length = row.cached = self._recall(slot, row)
        apart = (lambda row: id(row)) if self.flash else (lambda row: row.job.seen and id(row))
        groups = [list(group) for _, group in groupby(rows, apart)]
        logits = []
        for group in groups:
            logits.append(self._fill(first, group))
            first += len(group)
        for slot, row in enumerate(rows, len(self.rows)):
            self._remember(slot, row)
        self.rows.extend(rows)
        return torch.cat(logits)

    def clone(self, row: Row) -> None:
        twin = next(other for other in self.rows if other.job is row.job)
        row.length = len(row.job.prompt)
        row.cached, row.shift = twin.cached, twin.shift
        self.cache.move(self.rows.index(twin), len(self.rows), row.length)
        self.rows.append(row)

    def decode(self) -> Tensor:
        starts = [row.length for row in self.rows]
        shifts = [row.shift for row in self.rows]
        logits = self.run(0, starts, [[row.last] for row in self.rows], [[0]] * len(starts), shifts)
        for row in self.rows:
            row.length += 1
        return logits[:, 0]

    def drop(self, row: Row) -> None:
        slot, last = self.rows.index(row), len(self.rows) - 1
        if slot != last:
            self.cache.move(last, slot, self.rows[last].length)
            self.rows[slot] = self.rows[last]
        self.rows.pop()

    def clear(self) -> None:
        self.rows.clear()
        self.prefixes.clear()
        self.shifts.clear()
        self.cache.clear()

    def _make_room(self, rows: Sequence[Row]) -> None:
        """Give back what earlier company took, where slots once needed times positions needed is too much."""
        slots = len(self.rows) + sum(row.job.count for row in rows)
        positions = max(row.reach for row in (*self.rows, *rows))
        if self.cache.positions(slots, positions) > self.most:
            self.cache.trim(len(self.rows), max((row.length for row in self.rows), default=0))

    def _recall(self, slot: int, row: Row) -> int:
        start, seen, pieces = 0, row.job.seen, self.prefixes.find(row.job.names)
        if seen is not None:  # pictures are recalled whole, or shown again
            row.shift = self.shifts.get(seen.digest, 0)
            if sum(piece.count for piece in pieces) <= seen.last or seen.digest not in self.shifts:
                return 0
        for piece in pieces:
            self.cache.write(slot, start, piece.segment.states, piece.skip, piece.count)
            start += piece.count
        return start

    def _remember(self, slot: int, row: Row) -> None:
        known, whole = row.cached, len(row.job.names) * BLOCK
        if self.prefixes.limit and whole > known:
            self.prefixes.keep(row.job.names[known // BLOCK :], self.cache.read(slot, known, whole))

    def _fill(self, first: int, rows: list[Row]) -> Tensor:
        """Compute what is missing of some prompts, in passes of bounded width; rows end together."""
        if rows[0].job.seen is not None and not rows[0].length:
            [row], count = rows, len(rows[0].job.prompt)
            logits, row.shift = self.see(first, count, row.job.seen)
            row.length, self.shifts[row.job.seen.digest] = count, row.shift
            return logits[None]
        final: dict[int, Tensor] = {}
        while any(row.length < len(row.job.prompt) for row in rows):
            width = self._room(rows)
            left = [row.job.prompt[row.length : row.length + width] or row.job.prompt[-1:] for row in rows]
            starts = [min(row.length, len(row.job.prompt) - 1) for row in rows]
            longest = max(map(len, left))
            padded = [part + [part[-1]] * (longest - len(part)) for part in left]
            keep, shifts = [[len(part) - 1] for part in left], [row.shift for row in rows]
            logits = self.run(first, starts, padded, keep, shifts)
            for i, (row, part) in enumerate(zip(rows, left, strict=True)):
                if row.length < len(row.job.prompt):
                    row.length = starts[i] + len(part)
                    final[i] = logits[i, 0]
        return torch.stack([final[i] for i in range(len(rows))])

    def _room(self, rows: Sequence[Row]) -> int:
        """Tokens of each row that one pass may take."""
        end = max(len(row.job.prompt) for row in rows)
        return max(16, min(self.width // len(rows), MASK_ELEMENTS // (end * len(rows))))

    def see(self, slot: int, count: int, seen: Any) -> tuple[Tensor, int]:
        """A prompt of `count` tokens with its pictures, in one pass of the model's own: logits and shift."""
        self.cache.point(slot, [0], count)
        inputs = {name: placed(one, self.model, self.device) for name, one in seen.inputs.items()}
        held_back(self.model)
        with self.head.keeping([[count - 1]]):
            logits = self.model(**inputs, use_cache=True, **{self.argument: self.cache}).logits
        moved = held_back(self.model)
        return self.head.trim(logits, [[count - 1]])[0, 0], 0 if moved is None else int(moved.flatten()[0])

    def run(self, first: int, starts: list[int], tokens: list[list[int]], keep: list[list[int]],
            shifts: list[int] | None = None) -> Tensor:  # fmt: skip
        """One pass over slots from `first` on, writing at `starts`; logits at the positions in `keep`."""
        width = len(tokens[0])
        self.cache.point(first, starts, width)
        positions = (torch.tensor(starts)[:, None] + torch.arange(width)).to(self.device)
        with self.head.keeping(keep):
            logits = self.model(
                input_ids=torch.tensor(tokens, device=self.device),
                attention_mask=self._mask(starts, width, positions),
                position_ids=self._moved(positions, shifts).clamp(max=self.context - 1),
                use_cache=True,
                **{self.argument: self.cache},
            ).logits
        return self.head.trim(logits, keep)

    def _moved(self, positions: Tensor, shifts: list[int] | None) -> Tensor:
        return (
            positions + torch.tensor(shifts, device=self.device)[:, None] if any(shifts or ()) else positions
        )

    def _mask(self, starts: list[int], width: int, positions: Tensor) -> Any:
        """None where the kernel's own causal rule says it all."""
        end = self.cache.aim.end
        if len(starts) == 1 and (starts[0] == 0 or self.flash):
            return None
        if self.flash:
            return torch.arange(end, device=self.device)[None, :] <= positions
        return self.masks.build(positions, end)
