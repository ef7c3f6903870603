"""What autograd keeps of one token for the backward pass, counted from the shapes of a layer.

The count is that of transformers' own modules with SDPA or flash attention and without dropout; a test
holds it against the tensors that torch really saves. Fused kernels (Liger, Megatron) keep less.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from memserve.model.spec import Block, ModelSpec, Weight

ADAPTER = 4
"""Bytes of an element on the adapter's path: peft casts its input to float32."""


@dataclass(frozen=True)
class Keeping:
    """What is trained: it decides which inputs autograd must keep."""

    element: int
    """Bytes of an activation: 2, or 4 in float32."""
    adapted: Callable[[Weight], bool] | None = None
    """The linear layers that have an adapter; None: the weights themselves are trained."""
    rank: int = 0


def layer_bytes(model: ModelSpec, block: Block, keeping: Keeping) -> float:
    """Bytes that one token leaves in one layer."""
    linear = [weight for weight in block.weights if weight.linear]
    kept = sum(_times(block, w) * _linear_bytes(model, linear, w, keeping) for w in linear)
    return kept + _norm_bytes(model, block, keeping) + _routing_bytes(model, block, keeping)


def _linear_bytes(model: ModelSpec, layer: Iterable[Weight], weight: Weight, keeping: Keeping) -> float:
    rows, columns = weight.shape[0], weight.shape[-1]
    if not _closes(model, weight):
        kept = rows * keeping.element
    else:
        copies = 1 if weight.part in ("attention", "mixer") else _inner_copies(model, layer, weight, keeping)
        kept = columns * keeping.element * copies
    if keeping.adapted is not None and keeping.adapted(weight):
        kept += (columns + keeping.rank) * ADAPTER
    return kept


def _inner_copies(model: ModelSpec, layer: Iterable[Weight], weight: Weight, keeping: Keeping) -> int:
    """A gated MLP keeps the activated gate; the product is kept only to train the last matrix."""
    opening = [w for w in layer if w.part == weight.part and not _closes(model, w)]
    return int(len(opening) > 1) + int(keeping.adapted is None)


def _closes(model: ModelSpec, weight: Weight) -> bool:
    """Whether the matrix leads back to the hidden size: o_proj, down_proj."""
    if weight.shard == "row":
        return True
    return weight.part == "expert" and weight.shape[0] == model.hidden != weight.shape[-1]


def _times(block: Block, weight: Weight) -> float:
    """How often one token passes: experts count as many times as a token visits."""
    return block.experts_per_token if weight.part == "expert" else weight.count


def _norm_bytes(model: ModelSpec, block: Block, keeping: Keeping) -> float:
    """RMSNorm works in float32 and keeps its input so; LayerNorm keeps its input as it is."""
    names = {weight.name for weight in block.weights}
    trained = keeping.adapted is None
    kept = 0.0
    for weight in block.weights:
        if weight.part != "norm" or weight.name.endswith(".bias"):
            continue
        width = weight.shape[-1] if weight.shape[-1] == model.hidden else _head_width(block, weight)
        fused = f"{weight.name}.bias" in names
        inner = keeping.element if fused else 4 + trained * keeping.element
        feeds_linear = trained and weight.shape[-1] == model.hidden
        kept += width * (inner + feeds_linear * keeping.element)
    return kept


def _head_width(block: Block, weight: Weight) -> int:
    """A norm over each head's dimensions works on all heads; one over a latent only on that."""
    mixer = block.mixer
    if weight.shape[-1] != mixer.head_dim:
        return weight.shape[-1]
    return mixer.head_dim * (mixer.kv_heads if "k_" in weight.name else mixer.heads)


def _routing_bytes(model: ModelSpec, block: Block, keeping: Keeping) -> float:
    """The token's copy for each expert it visits, and what the expert gave back."""
    return 2 * keeping.element * model.hidden * block.experts_per_token if block.experts else 0.0
