"""What one layer keeps for past tokens on one rank: the raw material of every engine's cache."""

from math import prod
from typing import Literal, NamedTuple, TypeAlias

from memserve.model.memo import remembered
from memserve.model.spec import Mixer, ModelSpec

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
