"""Bytes: weights per rank, KV cache, start-up peaks, training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import lazy

if TYPE_CHECKING:
    from memserve.memory.kv import LayerCache as LayerCache
    from memserve.memory.kv import element_bytes as element_bytes
    from memserve.memory.kv import forward_bytes as forward_bytes
    from memserve.memory.kv import largest_context as largest_context
    from memserve.memory.kv import layer_caches as layer_caches
    from memserve.memory.kv import sequence_bytes as sequence_bytes
    from memserve.memory.kv import stage_caches as stage_caches
    from memserve.memory.weights import Split as Split
    from memserve.memory.weights import Storage as Storage
    from memserve.memory.weights import stage_bytes as stage_bytes
    from memserve.memory.weights import storage as storage
    from memserve.memory.weights import weight_bytes as weight_bytes

_HOMES = {
    "LayerCache": "kv", "element_bytes": "kv", "layer_caches": "kv", "forward_bytes": "kv",
    "largest_context": "kv", "sequence_bytes": "kv", "stage_caches": "kv",
    "Split": "weights", "Storage": "weights", "stage_bytes": "weights", "storage": "weights",
    "weight_bytes": "weights",
}  # fmt: skip
__all__ = sorted(_HOMES)
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, _HOMES)
