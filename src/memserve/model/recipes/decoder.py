"""Decoders: one block per distinct layer, from a config and the `Style` of its family."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memserve.model.config import LARGEST
from memserve.model.recipes import layers, pieces
from memserve.model.recipes.anatomy import Anatomy
from memserve.model.recipes.style import Style, on
from memserve.model.spec import Block, Mixer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from memserve.model.config import Config
    from memserve.model.recipes.pieces import Weights
    from memserve.model.recipes.style import Moe
    from memserve.model.spec import MixerKind

    Maker: TypeAlias = Callable[[Config, Style, str, bool], Block]


class Heads(NamedTuple):
    """Attention's sizes in one layer."""

    heads: int
    kv: int
    dim: int


def head_sizes(config: Config) -> Heads:
    """Heads, KV heads (null: as many as heads) and head width (null: hidden / heads)."""
    heads = config.size("num_attention_heads")
    kv = config.maybe("num_key_value_heads") or heads
    dim = config.maybe("head_dim")
    if not heads:
        config.bad("num_attention_heads", "must not be zero")
    return Heads(heads, kv, dim or config.size("hidden_size") // heads)


def attention(config: Config, style: Style, size: Heads) -> Weights:
    """Grouped-query attention."""
    hidden = config.size("hidden_size")
    bias = on(config, style.qkv_bias)
    name = style.attention
    q, kv = size.heads * size.dim, size.kv * size.dim
    found = [
        *pieces.linear(f"{name}.q_proj", q, hidden, "column", bias=bias),
        *pieces.linear(f"{name}.k_proj", kv, hidden, "kv", bias=bias),
        *pieces.linear(f"{name}.v_proj", kv, hidden, "kv", bias=bias),
        *pieces.linear(f"{name}.{style.out_name}", hidden, q, "row", bias=on(config, style.out_bias)),
    ]
    if style.sinks:
        found += pieces.vector(f"{name}.sinks", size.heads, part="attention", shard="column")
    return (*found, *_qk_norms(config, style, size))


def _qk_norms(config: Config, style: Style, size: Heads) -> Weights:
    if not style.qk_norm or not on(config, style.qk_norm_if):
        return ()
    q, k = f"{style.attention}.q_norm", f"{style.attention}.k_norm"
    if style.qk_norm == "head":
        return (*pieces.norm(q, size.dim, style.norm), *pieces.norm(k, size.dim, style.norm))
    if style.qk_norm == "full":
        return (
            *pieces.norm(q, size.heads * size.dim, style.norm),
            *pieces.norm(k, size.kv * size.dim, style.norm),
        )
    return (
        *pieces.vector(q, size.heads, size.dim, part="norm", shard="column"),
        *pieces.vector(k, size.kv, size.dim, part="norm", shard="kv"),
    )


def dense_mlp(config: Config, style: Style, width: int | None = None) -> Weights:
    """The feed-forward part of a dense layer."""
    hidden = config.size("hidden_size")
    width = config.size(style.width) if width is None else width
    bias = on(config, style.mlp_bias)
    if style.mlp == "plain":
        return pieces.plain_mlp("mlp", hidden, width, bias=bias, names=style.mlp_names)
    return pieces.gated_mlp("mlp", hidden, width, bias=bias, fused=style.mlp == "fused")


def is_sparse(config: Config, moe: Moe, index: int) -> bool:
    """Whether layer `index` has experts."""
    listed = config.items("mlp_layer_types")
    if listed and index < len(listed):
        return bool(listed[index] == "sparse")
    if moe.layers == "first_dense":
        return index >= config.size("first_k_dense_replace", 0)
    if moe.layers == "steps":
        step = config.size("decoder_sparse_step", 1)
        listed_dense = config.items("mlp_only_layers") or []
        return index not in listed_dense and step > 0 and (index + 1) % step == 0
    return True


def experts(config: Config, moe: Moe, bias: bool = False) -> Weights:
    """Router, routed and shared experts of one layer."""
    hidden, count, width = config.size("hidden_size"), config.size(moe.experts), config.size(moe.width)
    found = [
        *pieces.linear("mlp.gate", count, hidden, bias=moe.router_bias, part="router"),
        *pieces.experts("mlp.experts", count, hidden, width, gated=moe.gated, bias=moe.expert_bias),
    ]
    if moe.correction:
        found += pieces.vector("mlp.gate.e_score_correction_bias", count, part="router")
    shared = 0
    if moe.shared_width:
        shared = config.size(moe.shared_width, 0)
    elif moe.shared_count:
        shared = width * (config.maybe(moe.shared_count) or 0)
    if shared:
        found += pieces.gated_mlp("mlp.shared_experts", hidden, shared, bias=bias, part="shared_expert")
    if shared and moe.shared_gate:
        found += pieces.linear("mlp.shared_expert_gate", 1, hidden, part="shared_expert")
    return tuple(found)


def norms(config: Config, style: Style) -> Weights:
    """The norms of one layer."""
    hidden = config.size("hidden_size")
    return tuple(w for name in style.norms for w in pieces.norm(name, hidden, style.norm))


def mixer_of(kind: str, config: Config, size: Heads) -> Mixer:
    """What a layer of grouped-query attention caches."""
    window = {"sliding": "sliding_window", "chunked": "attention_chunk_size"}.get(kind)
    seen = config.maybe(window) if window else None
    if window and (not seen or seen >= config.size("max_position_embeddings", LARGEST)):
        kind, seen = "full", None
    real: MixerKind = "sliding" if kind == "sliding" else "chunked" if kind == "chunked" else "full"
    return Mixer(real, size.heads, size.kv, size.dim, size.dim, window=seen)


def standard_block(config: Config, style: Style, kind: str, sparse: bool) -> Block:
    """Attention, feed-forward, norms."""
    size = head_sizes(config)
    return finish_block(config, style, mixer_of(kind, config, size), attention(config, style, size), sparse)


def finish_block(config: Config, style: Style, mixer: Mixer, attend: Weights, sparse: bool) -> Block:
    """A layer from its token mixer: feed-forward part and norms added."""
    moe = style.moe
    if not (sparse and moe):
        return Block(mixer, (*attend, *dense_mlp(config, style), *norms(config, style)))
    count = config.size(moe.experts)
    active = min(config.size(moe.per_token, count), count)
    return Block(
        mixer,
        (*attend, *experts(config, moe, on(config, style.mlp_bias)), *norms(config, style)),
        count,
        active,
    )


def stack(config: Config, style: Style, make: Maker = standard_block) -> tuple[Block, ...]:
    """All layers; equal ones are one object."""
    made: dict[tuple[str, bool], Block] = {}
    found = []
    for index, kind in enumerate(layers.kinds(config, style.windows)):
        key = kind, bool(style.moe and is_sparse(config, style.moe, index))
        if key not in made:
            made[key] = make(config, style, *key)
        found.append(made[key])
    return tuple(found)


def assemble(config: Config, style: Style, blocks: tuple[Block, ...], rope_dim: int | None = None) -> Anatomy:
    """A decoder's body without its head."""
    hidden, vocabulary = config.size("hidden_size"), config.size("vocab_size")
    stem = pieces.embedding("embed_tokens", vocabulary, hidden)
    if style.positions:
        rows = config.size(style.positions) + style.position_offset
        stem = (*stem, *pieces.positions("embed_positions", rows, hidden))
    if style.embed_norm:
        stem = (*stem, *pieces.norm("embed_norm", hidden, style.norm))
    top = pieces.norm(style.final_norm, hidden, style.norm) if style.final_norm else ()
    if rope_dim is None:
        rope_dim = 0 if style.positions else head_sizes(config).dim
    return Anatomy(
        blocks, stem, top, hidden=hidden, vocabulary=vocabulary,
        intermediate=config.maybe(style.width) or 0, rope_dim=rope_dim,
    )  # fmt: skip


def decoder(config: Config, style: Style) -> Anatomy:
    """A decoder of standard blocks."""
    return assemble(config, style, stack(config, style))
