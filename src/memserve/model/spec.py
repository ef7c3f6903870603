"""What a model is: its layers one by one, and every weight with the way it is split over cards.

`parameters` is the sum over the weights, so the count, the bytes per rank and the reading per token all
come from one inventory and cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, Literal, TypeAlias, TypeVar

MixerKind: TypeAlias = Literal["full", "sliding", "chunked", "mla", "linear", "mamba", "cross", "none"]
Part: TypeAlias = Literal[
    "embedding", "position", "attention", "mlp", "router", "expert", "shared_expert", "mixer", "norm",
    "head", "tower", "projector", "other",
]  # fmt: skip
Shard: TypeAlias = Literal["column", "row", "kv", "vocab", "expert", "replicated"]


@dataclass(frozen=True)
class Weight:
    """`count` equal tensors of one role.

    shard: how tensor parallelism splits each: `column` (output features), `row` (input features), `kv`
    (by KV heads, so replicated once tp exceeds them), `vocab` (padded vocabulary rows), `expert` (as
    column/row inside an expert, or whole experts under expert parallelism), `replicated` (not at all).
    linear: a matrix multiplication that weight quantization may replace.
    """

    name: str
    part: Part
    shape: tuple[int, ...]
    shard: Shard = "replicated"
    count: int = 1
    linear: bool = False
    tied: bool = False
    """The tensor is another one's alias: counted for reading, not for parameters or memory."""

    @property
    def parameters(self) -> int:
        """Elements stored; none for a tied alias."""
        return 0 if self.tied else self.count * prod(self.shape)


@dataclass(frozen=True)
class Mixer:
    """The token mixer of one layer: what its cache holds follows from this."""

    kind: MixerKind
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    value_dim: int = 0
    window: int | None = None
    """Tokens a sliding window or a chunk sees."""
    kv_lora_rank: int = 0
    rope_dim: int = 0
    """MLA: the rotary part that is cached beside the latent."""
    index_dim: int = 0
    """Sparse MLA: the indexer's key, cached too."""
    state: tuple[tuple[int, ...], ...] = ()
    """Linear attention and Mamba: shapes of the per-sequence states (convolution, recurrent)."""
    state_dtype: str = ""
    """Dtype of the recurrent state where the config names one (`mamba_ssm_dtype`)."""
    stride: int = 1
    """Beyond the window one entry is cached for so many tokens (DeepSeek-V4)."""
    shares_cache_of: int | None = None
    """Index of the layer whose KV cache this one reads instead of keeping its own."""


@dataclass(frozen=True)
class Block:
    """One layer. Equal layers share one Block object, so callers may group by identity."""

    mixer: Mixer
    weights: tuple[Weight, ...]
    experts: int = 0
    experts_per_token: int = 0


NOTHING = Mixer("none")


@dataclass(frozen=True)
class Quantization:
    """How a checkpoint is stored, as its own config says."""

    method: str
    """memserve's name: gptq, awq, nf4, int8, fp8, w8a8, w4a16, nvfp4, mxfp4, ..."""
    checkpoint_method: str = ""
    """`quant_method` as written in the config."""
    bits: float = 16.0
    group_size: int | None = None
    """-1: one group per row."""
    zero_points: bool = False
    block: tuple[int, int] | None = None
    double: bool = False
    format: str = ""
    activations: str | None = None
    ignored: tuple[str, ...] = ()
    """Modules kept in 16 bit; `re:` marks a regular expression."""
    desc_act: bool = False
    """GPTQ's act-order, which some kernels refuse when rows are split."""
    head: bool = False
    """The output matrix is quantized too."""
    kv_dtype: str = ""
    """What the checkpoint asks the KV cache to be held in; empty: nothing."""
    targets: tuple[str, ...] = ()
    """Of one of `others`: the modules it holds, as the config names them."""
    others: tuple[Quantization, ...] = ()
    """Further formats, of the modules in their `targets`."""


@dataclass(frozen=True)
class ModelSpec:
    """A model as planned with: shapes only, no weights loaded."""

    id: str
    architecture: str
    model_type: str
    blocks: tuple[Block, ...]
    stem: tuple[Weight, ...]
    """Before the first layer (embeddings)."""
    top: tuple[Weight, ...]
    """After the last layer (final norm, head)."""
    towers: tuple[Weight, ...] = ()
    """Vision or audio encoders and their projectors."""
    encoder: tuple[Block, ...] = ()
    """The encoder half of an encoder-decoder model."""
    hidden: int = 0
    intermediate: int = 0
    vocabulary: int = 0
    max_context: int | None = None
    dtype: str = "bfloat16"
    """The dtype of the checkpoint, float16, bfloat16 or float32."""
    tied_embeddings: bool = False
    rope_dim: int = 0
    rope_rows: int = 0
    """Positions for which engines build a cos/sin table."""
    quantization: Quantization | None = None
    levels: tuple[str, ...] = ()
    """Of a repository that was named without a file: the quantizations that it is known to hold."""
    exact: bool = True
    """False: `parameters` is an estimate, within a few per cent, of a family that has no recipe."""
    encoder_only: bool = False
    pooling: str | None = None
    scoring_tokens: tuple[str, ...] = ()
    """Of a reranker that is a decoder: the answers (no, yes) whose logits make a score."""
    mtp_layers: int = 0
    remote_code: bool = False
    tokenizer_code: bool = False
    """Its tokenizer is code of the repository: without consent engines load another one, or none."""
    source: str = ""
    """Where the shapes came from: a path, a hub id, the catalogue and its date."""
    notes: tuple[str, ...] = ()
    stored: tuple[tuple[str, int], ...] = ()
    """Bytes on disk by dtype, where the files were at hand; scales and buffers included."""

    @property
    def embeds(self) -> bool:
        """It makes vectors or scores of texts, and no tokens: an embedder or a reranker."""
        return self.encoder_only or self.pooling is not None

    @property
    def reranks(self) -> bool:
        """Of those that embed: it scores pairs of texts."""
        return bool(self.scoring_tokens) or "SequenceClassification" in self.architecture

    @cached_property
    def weights(self) -> tuple[Weight, ...]:
        """Every weight, layers repeated."""
        layers = (w for block in (*self.encoder, *self.blocks) for w in block.weights)
        return (*self.stem, *layers, *self.top, *self.towers)

    @cached_property
    def kinds(self) -> tuple[Weight, ...]:
        """Every weight, layers of one kind once."""
        blocks = {id(block): block for block in (*self.encoder, *self.blocks)}
        layers = (w for block in blocks.values() for w in block.weights)
        return (*self.stem, *layers, *self.top, *self.towers)

    @cached_property
    def parameters(self) -> int:
        """The exact number that transformers builds: tied weights once, no buffers, no MTP layers."""
        return sum(weight.parameters for weight in self.weights)

    @cached_property
    def active_parameters(self) -> int:
        """Parameters that one token passes through; equals `parameters` for dense models."""
        return self.parameters - sum(_idle(block) for block in (*self.encoder, *self.blocks))


def _idle(block: Block) -> int:
    if not block.experts:
        return 0
    routed = sum(w.parameters for w in block.weights if w.part == "expert")
    return routed - routed * block.experts_per_token // block.experts


def parted(model: ModelSpec, away: int, *, whole: bool = False) -> tuple[ModelSpec, ModelSpec]:
    """What the cards hold and what the host does, of a model whose first layers are on the host.

    Of a mixture of experts only their experts are, unless `whole`: attention and the cache stay on the cards.
    """
    return remembered(model, ("parted", away, whole), lambda: _parted(model, away, whole))


def _experts(block: Block, wanted: bool) -> tuple[Weight, ...]:
    return tuple(weight for weight in block.weights if (weight.part == "expert") == wanted)


def told_away(model: ModelSpec, away: int) -> str:
    """`parted` in words."""
    mixed = any(block.experts for block in model.blocks)
    return f"{'the experts of ' * mixed}{away} of {len(model.blocks)} layers on the host"


def _parted(model: ModelSpec, away: int, whole: bool) -> tuple[ModelSpec, ModelSpec]:
    if whole or not any(block.experts for block in model.blocks):
        kept = replace(model, blocks=model.blocks[away:], stem=(), top=(), towers=()) if away else model
        return kept, replace(model, blocks=model.blocks[:away])
    first = model.blocks[:away]
    go = tuple(replace(block, mixer=NOTHING, weights=_experts(block, True)) for block in first)
    stay = tuple(Block(block.mixer, _experts(block, False)) for block in first)
    return replace(model, blocks=(*stay, *model.blocks[away:])), replace(model, blocks=go, top=(), towers=())


T = TypeVar("T")
KEPT = 64
"""Models of which something is remembered at a time."""
_memos: dict[int, tuple[ModelSpec, dict[Hashable, Any]]] = {}


def remembered(model: ModelSpec, key: Hashable, make: Callable[[], T]) -> T:
    """What `make` finds about this very object, made on first use."""
    known = _memos.get(id(model))
    if known is None or known[0] is not model:
        if len(_memos) >= KEPT:
            _memos.pop(next(iter(_memos)), None)  # the oldest alone: a plan in work keeps what it has found
        known = _memos[id(model)] = (model, {})
    memo = known[1]
    if key not in memo:
        memo[key] = make()
    found: T = memo[key]
    return found
