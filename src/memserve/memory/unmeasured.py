"""What accounts of engines have in common that start without measuring themselves."""

from dataclasses import replace
from math import prod

from memserve.engines.deployment import Deployment
from memserve.engines.memory import Accountant, Footprint
from memserve.hardware.machine import Machine
from memserve.memory.kv import LayerCache, layer_caches
from memserve.memory.weights import partition
from memserve.model.memo import remembered
from memserve.model.spec import ModelSpec


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
