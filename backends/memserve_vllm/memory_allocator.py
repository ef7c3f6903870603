"""What torch's allocator holds when a release before 0.6.4 has profiled its layers: all it ever reserved."""

from itertools import pairwise
from typing import NamedTuple

from memserve.engines.rules import within
from memserve.memory.weights import storage
from memserve.model.spec import remembered
from memserve_vllm.memory_run import Run

ROUNDED, SEGMENT, SPLIT = 512, 2 << 20, 1 << 20
LAYERS = 3
"""After so many nothing more is reserved."""
PARTS, WHOLE_SINCE = 8, "0.3.0"
"""AWQ's kernel makes so many products and sums them: csrc/quantization/awq/gemm_kernels.cu of 0.2.7."""
MARLIN = {"gptq": "0.4.2", "awq": "0.5.3"}
"""From here on Marlin's kernels are taken where a card has them; before, each product unpacks its weight."""
MARLIN_SM = 80


class Block:
    """A piece of a segment."""

    def __init__(self, size: int, *, free: bool) -> None:
        self.size, self.free = size, free


class Allocator:
    """torch's, for large tensors: the smallest free block that holds one, split; free neighbours join."""

    def __init__(self) -> None:
        self.segments: list[list[Block]] = []
        self.reserved = 0

    def take(self, wanted: float) -> Block:
        """A block for a tensor of so many bytes."""
        size = -(-round(wanted) // ROUNDED) * ROUNDED
        free = [one for blocks in self.segments for one in blocks if one.free and one.size >= size]
        if free:
            block = min(free, key=lambda one: one.size)
        else:
            block = Block(-(-size // SEGMENT) * SEGMENT, free=True)
            self.reserved += block.size
            self.segments.append([block])
        if block.size - size > SPLIT:
            blocks = next(blocks for blocks in self.segments if block in blocks)
            blocks.insert(blocks.index(block) + 1, Block(block.size - size, free=True))
            block.size = size
        block.free = False
        return block

    def give(self, *blocks: Block) -> None:
        """Free these blocks again."""
        for block in blocks:
            block.free = True
        for segment in self.segments:
            for left, right in list(pairwise(segment))[::-1]:
                if left.free and right.free:
                    left.size += right.size
                    segment.remove(right)


class Shape(NamedTuple):
    """A layer's widths on one rank, and what its products cost beside their results."""

    tokens: int
    element: int
    hidden: int
    joined: int
    """Queries, keys and values."""
    queries: int
    inner: int
    parts: int
    unpacked: bool


def reserved_bytes(run: Run) -> int:
    """What three dense layers make torch reserve: states in, normed, joined, attended, projected, gate and up
    in one, their product."""
    mixer, ranks = run.model.blocks[0].mixer, run.deployment.layout.tensor
    queries = mixer.heads * mixer.head_dim // ranks
    keys = max(mixer.kv_heads // ranks, 1) * mixer.head_dim
    method = _method(run)
    parts = PARTS if method == "awq" and within(run.deployment.engine_version, None, WHOLE_SINCE) else 0
    shape = Shape(
        run.batch.tokens, run.element, run.model.hidden, queries + 2 * keys, queries,
        run.model.intermediate // ranks, parts, bool(method),
    )  # fmt: skip
    return remembered(run.model, shape, lambda: _profiled(shape))


def _method(run: Run) -> str:
    """gptq or awq where other kernels than Marlin's take its weights."""
    deployment = run.deployment
    held_in = storage(run.model, deployment.quantization, deployment.dtype)
    method = held_in.format.method if held_in.format else ""
    if method not in MARLIN:
        return ""
    sm = run.machine.card.sm or 0
    able = sm >= MARLIN_SM and within(deployment.engine_version, MARLIN[method], None)
    return "" if able and deployment.option("quantization") != method else method


def _profiled(shape: Shape) -> int:
    pool, unit = Allocator(), shape.tokens * shape.element

    def product(taken: int, out: int) -> Block:
        beside = shape.parts * out * unit if shape.parts else taken * out * shape.element * shape.unpacked
        held = pool.take(beside) if beside else None
        found = pool.take(out * unit)
        if held is not None:
            pool.give(held)
        return found

    pool.take(shape.hidden * unit)
    states = pool.take(shape.hidden * unit)
    for _ in range(LAYERS):
        joined, attended = product(shape.hidden, shape.joined), pool.take(shape.queries * unit)
        out = product(shape.queries, shape.hidden)
        pool.give(joined, attended, states)
        both, made = product(shape.hidden, 2 * shape.inner), pool.take(shape.inner * unit)
        states = product(shape.inner, shape.hidden)
        pool.give(both, made, out)
    return pool.reserved
