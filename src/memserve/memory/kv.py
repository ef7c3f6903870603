"""What one layer keeps for past tokens on one rank: the raw material of every engine's cache."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Literal, NamedTuple, TypeAlias

from memserve.engines.deployment import Deployment
from memserve.engines.memory import Accountant, Footprint
from memserve.hardware.machine import Machine
from memserve.memory.weights import partition
from memserve.model.spec import Mixer, ModelSpec, remembered

CacheKind: TypeAlias = Literal["full", "window", "chunk", "latent", "cross", "state"]
ELEMENT = {
    "auto": 2, "float16": 2, "half": 2, "bfloat16": 2, "float32": 4, "float": 4, "fp8": 1, "fp8_e4m3": 1,
    "fp8_e5m2": 1, "fp8_inc": 1, "int8": 1, "int4": 0.5, "nvfp4": 0.5625, "fp4_e2m1": 0.5625,
    "fp8_ds_mla": 1, "int8_per_token_head": 1, "fp8_per_token_head": 1, "int4_per_token_head": 0.5,
}  # fmt: skip
"""Bytes of one cached element by the engines' names; nvfp4 carries a scale byte per 16."""
STATE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class LayerCache(NamedTuple):
    """One layer's cache on one rank: bytes per token, or bytes per sequence for a recurrent state."""

    kind: CacheKind
    token_bytes: int = 0
    window: int = 0
    state_bytes: int = 0
    index_bytes: int = 0
    """Per token, beside the latent: the key of sparse attention's indexer."""


def element_bytes(kv_dtype: str, dtype: str) -> float:
    """Bytes of a cached element; `auto` follows the model's dtype."""
    return ELEMENT.get(dtype, 2) if kv_dtype == "auto" else ELEMENT.get(kv_dtype.lower(), 2)


def layer_cache(mixer: Mixer, ranks: int, element: float, index_element: float = 2,
                state_element: int = 2, conv_element: int = 2) -> LayerCache | None:  # fmt: skip
    """What a layer with this mixer keeps when its heads are spread over `ranks`; None: nothing of its own."""
    if mixer.kind == "none" or mixer.shares_cache_of is not None:
        return None
    if mixer.kind in ("linear", "mamba"):
        return LayerCache("state", state_bytes=_state_bytes(mixer, ranks, state_element, conv_element))
    if mixer.kind == "mla":
        latent = round((mixer.kv_lora_rank + mixer.rope_dim) * element)
        return LayerCache("latent", latent, index_bytes=round(mixer.index_dim * index_element))
    heads = max(1, -(-mixer.kv_heads // ranks))
    token = round(heads * (mixer.head_dim + (mixer.value_dim or mixer.head_dim)) * element)
    if mixer.kind == "sliding" and mixer.window:
        return LayerCache("window", token, mixer.window)
    if mixer.kind == "chunked" and mixer.window:
        return LayerCache("chunk", token, mixer.window)
    return LayerCache("cross" if mixer.kind == "cross" else "full", token)


def _state_bytes(mixer: Mixer, ranks: int, state_element: int, conv_element: int) -> int:
    recurrent = STATE_BYTES.get(mixer.state_dtype, state_element)
    sizes = [prod(shape) / ranks for shape in mixer.state]
    if not sizes:
        return 0
    *convolutions, state = sizes
    return round(sum(size * conv_element for size in convolutions) + state * recurrent)


def layer_caches(model: ModelSpec, ranks: int, element: float, index_element: float = 2,
                 state_element: int = 2) -> tuple[LayerCache | None, ...]:  # fmt: skip
    """The cache of every layer, in order; equal layers share one object."""
    key = ("caches", ranks, element, index_element, state_element)
    return remembered(model, key, lambda: _layer_caches(model, ranks, element, index_element, state_element))


def _layer_caches(model: ModelSpec, ranks: int, element: float, index_element: float,
                  state_element: int) -> tuple[LayerCache | None, ...]:  # fmt: skip
    known: dict[int, LayerCache | None] = {}
    caches = []
    for block in model.blocks:
        key = id(block.mixer)
        if key not in known:
            known[key] = layer_cache(block.mixer, ranks, element, index_element, state_element)
        caches.append(known[key])
    return tuple(caches)


def token_bytes(caches: tuple[LayerCache | None, ...]) -> int:
    """Bytes that one token of a long context takes over all layers that keep every token."""
    return sum(c.token_bytes + c.index_bytes for c in caches if c is not None and c.kind != "state")


def forward_bytes(model: ModelSpec, tokens: int, element: int, ranks: int = 1) -> int:
    """The peak of one forward pass without gradients: the widest moment of one layer.

    The residual and its float32 norm stand beside either q, k, v and their output or a gated MLP's three
    inner tensors.
    """
    norm = 4 if element < 4 else 0
    inner = remembered(model, "widest layer", lambda: max(map(_inner, _distinct(model)), default=0))
    return round(tokens * (element * (2 * model.hidden + inner / ranks) + norm * model.hidden))


def _distinct(model: ModelSpec) -> list[tuple[int, int]]:
    """(attention width, MLP width) of each kind of layer, as far as one token touches it."""
    kinds = {id(block): block for block in (*model.encoder, *model.blocks)}
    widths = []
    for block in kinds.values():
        mixer = block.mixer
        attention = mixer.heads * (mixer.head_dim + mixer.value_dim) + 2 * mixer.kv_heads * mixer.head_dim
        rows = [w.shape[0] for w in block.weights if w.linear and w.part in ("mlp", "shared_expert")]
        routed = [w.shape[0] for w in block.weights if w.linear and w.part == "expert"]
        widths.append(
            (attention, 3 * max(rows, default=0) + 3 * block.experts_per_token * max(routed, default=0))
        )
    return widths


def _inner(widths: tuple[int, int]) -> int:
    return max(widths)


def largest_matrix(model: ModelSpec) -> int:
    """Elements of the largest linear weight inside the layers: what is unpacked at once."""
    sizes = (prod(w.shape) for block in model.blocks for w in block.weights if w.linear)
    return remembered(model, "largest matrix", lambda: max(sizes, default=0))


def stage_caches(model: ModelSpec, stages: int, ranks: int, element: float) -> list[tuple[LayerCache, ...]]:
    """The caches of each pipeline stage's layers."""
    caches = layer_caches(model, ranks, element)
    result, start = [], 0
    for size in partition(len(caches), stages):
        result.append(tuple(cache for cache in caches[start : start + size] if cache is not None))
        start += size
    return result


def sequence_bytes(caches: tuple[LayerCache, ...], tokens: int, *, windows: bool = False) -> int:
    """What one sequence of so many tokens keeps; `windows`: sliding layers keep their window only."""
    total = 0
    for cache in caches:
        kept = min(tokens, cache.window) if windows and cache.window else tokens
        total += cache.state_bytes + kept * (cache.token_bytes + cache.index_bytes)
    return total


def largest_context(accountant: Accountant, model: ModelSpec, machine: Machine,
                    deployment: Deployment) -> int:  # fmt: skip
    """The longest context that starts and holds the wanted requests, by halving."""

    def holds(context: int) -> bool:
        found: Footprint = accountant.account(model, machine, replace(deployment, context=context))
        return found.outcome == "runs" and found.max_concurrency >= deployment.concurrency

    low, high = 0, model.max_context or deployment.context
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
