"""The KV pool as vLLM forms it: layers of equal specification grouped, pages of one size, whole blocks.

Read in v1/core/kv_cache_utils.py and v1/kv_cache_interface.py of vLLM 0.11.0, 0.19.1, 0.25.1 and 0.33.0.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from memserve.memory.kv import LayerCache

DS_MLA_TOKEN = 656
"""fp8_ds_mla: 512 fp8 latents, 16 bytes of scales, 64 rotary values in bf16."""
INDEX_TOKEN = 132
"""DeepSeek sparse attention: a 128-wide fp8 key with one float32 scale."""


def cdiv(a: int, b: int) -> int:
    """Division rounded up."""
    return -(-a // b)


class PagePlan(NamedTuple):
    """Which choices of one vLLM version shape the pool."""

    block: int = 16
    align: int = 16
    """Block sizes of hybrid models are multiples of this."""
    grouped: bool = True
    """Sliding windows keep their own groups; else they count as full attention."""
    states: int = 1
    """Recurrent states kept per request: 2 where prefix caching aligns them."""
    tokens_from_concurrency: bool = False
    """From 0.20.1 the printed tokens are max_concurrency x max_model_len."""
    near: float = 1.5
    """Kinds of layers closer in number than this share the larger number as group size."""
    context_parallel: int = 1


class Group(NamedTuple):
    """Layers that share one block table."""

    kind: str
    block: int
    page: int
    window: int = 0

    def pages(self, length: int, batched: int, plan: PagePlan) -> int:
        """Pages that one request of `length` tokens takes at most."""
        if self.kind == "state":
            return plan.states
        if self.kind == "window":
            return cdiv(min(self.window - 1 + batched, length), self.block) + 1
        if self.kind == "cross":
            return cdiv(self.window, self.block)
        if self.kind == "chunk":
            return cdiv(min(self.window + batched, length), self.block)
        return cdiv(cdiv(length, plan.context_parallel), self.block)


class Pool(NamedTuple):
    """Groups of equal layer count over pages of one size."""

    groups: tuple[Group, ...]
    layers: int
    """Layers per group, padded."""
    plan: PagePlan

    @property
    def block_bytes(self) -> int:
        """Bytes that one block id takes over all layers of a group."""
        return self.layers * self.groups[0].page if self.groups else 0

    def blocks(self, available: int) -> int:
        """Whole blocks in `available` bytes."""
        return max(0, available // self.block_bytes) if self.block_bytes else 0

    def blocks_per_request(self, length: int, batched: int) -> int:
        """Blocks that one request of `length` tokens takes at most."""
        return sum(group.pages(length, batched, self.plan) for group in self.groups)

    def tokens(self, blocks: int, length: int, batched: int) -> int:
        """The number that vLLM prints as the size of its cache."""
        if not self.groups:
            return 0
        if self.plan.tokens_from_concurrency:
            return int(blocks / self.blocks_per_request(length, batched) * length)
        smallest = min(group.block for group in self.groups)
        return blocks // len(self.groups) * smallest * self.plan.context_parallel


def pool(caches: Iterable[LayerCache | None], plan: PagePlan) -> Pool:
    """The pool that vLLM makes for these layers."""
    counts = Counter(_specification(c, plan) for c in caches if c is not None)
    if not counts:
        return Pool((), 0, plan)
    if not any(c.kind == "state" for c in counts) and len({_type(c) for c in counts}) == 1:
        return _one_group(counts, plan)
    block = _hybrid_block(counts, plan)
    sized = _same_page(counts, block)
    return _grouped(sized, plan)


def _specification(cache: LayerCache, plan: PagePlan) -> LayerCache:
    if cache.kind in ("window", "chunk") and not plan.grouped:
        return cache._replace(kind="full", window=0)
    own = cache.kind == "latent" or (cache.kind == "cross" and not cache.window)
    return cache._replace(kind="full") if own else cache


def _type(cache: LayerCache) -> tuple[str, int]:
    return cache.kind, cache.window


def _one_group(counts: Counter[LayerCache], plan: PagePlan) -> Pool:
    """All layers hold the same tokens: one group, whatever each layer's width."""
    first = next(iter(counts))
    page = sum((c.token_bytes + c.index_bytes) * n for c, n in counts.items()) * plan.block
    return Pool((Group(first.kind, plan.block, page, first.window),), 1, plan)


def _hybrid_block(counts: Counter[LayerCache], plan: PagePlan) -> int:
    """Tokens per block: enough that an attention page holds a recurrent state."""
    state = max((c.state_bytes for c in counts if c.kind == "state"), default=0)
    token = max((c.token_bytes + c.index_bytes for c in counts if c.kind != "state"), default=0)
    if not state or not token:
        return plan.block
    return max(plan.block, plan.align * cdiv(state, plan.align * token))


def _same_page(counts: Counter[LayerCache], block: int) -> list[tuple[Group, int]]:
    """Pages of one size: narrower layers take more tokens per page, states are padded."""
    pages = {c: (c.token_bytes + c.index_bytes) * block or c.state_bytes for c in counts}
    largest = max(pages.values())
    merged: Counter[Group] = Counter()
    for cache, number in counts.items():
        tokens = block if cache.kind == "state" else block * max(1, largest // max(1, pages[cache]))
        merged[Group(cache.kind, tokens, largest, cache.window)] += number
    return list(merged.items())


def _grouped(sized: list[tuple[Group, int]], plan: PagePlan) -> Pool:
    """Groups of as many layers as the rarest kind has, or as the commonest if they are nearly equal."""
    numbers = [number for _, number in sized]
    size = max(numbers) if max(numbers) < plan.near * min(numbers) else min(numbers)
    groups: list[Group] = []
    for group, number in sized:
        groups.extend([group] * cdiv(number, size))
    return Pool(tuple(groups), size, plan)
