"""Decoders: one block per distinct layer, from a config and the `Family` of its family."""

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from memserve.model.config import LARGEST, Config
from memserve.model.recipes import modules
from memserve.model.recipes.modules import Family, Inventory, Moe, Weights, on
from memserve.model.spec import Block, Mixer, MixerKind

KINDS = {
    "full_attention": "full", "attention": "full", "sliding_attention": "sliding",
    "chunked_attention": "chunked", "linear_attention": "linear", "mamba": "mamba", "conv": "conv",
}  # fmt: skip
FULL, SLIDING = "full", "sliding"


def _every(period: int, first: int | None = None) -> Callable[[Config, int], str]:
    """Each n-th layer attends to all, from `first` on."""
    start = period - 1 if first is None else first
    return lambda _config, index: FULL if index % period == start else SLIDING


def _last(config: Config, index: int) -> str:
    windowed = config.raw("sliding_window") is not None and index >= config.size("max_window_layers", 0)
    return SLIDING if windowed else FULL


def _qwen(config: Config, index: int) -> str:
    windowed = config.flag("use_sliding_window") and config.raw("sliding_window") is not None
    return SLIDING if windowed and index >= config.size("max_window_layers", 0) else FULL


def _if_window(config: Config, _index: int) -> str:
    return SLIDING if config.raw("sliding_window") is not None else FULL


def _pattern(usual: int) -> Callable[[Config, int], str]:
    """Every n-th layer attends to all; or letters, `LLLG`: local, local, local, global, and again."""

    def kind(config: Config, index: int) -> str:
        written = config.raw("sliding_window_pattern", usual)
        if isinstance(written, str) and written:
            if index == config.layers() - 1:
                return FULL
            return SLIDING if written[index % len(written)] in "Ll" else FULL
        period = config.size("sliding_window_pattern", usual)
        return FULL if period and (index + 1) % period == 0 else SLIDING

    return kind


def _qwen_moe(config: Config, _index: int) -> str:
    windowed = config.flag("use_sliding_window") and config.raw("sliding_window") is not None
    return SLIDING if windowed else FULL


def _afmoe(config: Config, index: int) -> str:
    period = config.size("global_attn_every_n_layers", 4)
    return FULL if period and (index + 1) % period == 0 else SLIDING


def _llama4(config: Config, index: int) -> str:
    rotated = config.items("no_rope_layers")
    period = config.size("no_rope_layer_interval", 4)
    chunked = bool(rotated[index]) if rotated and index < len(rotated) else (index + 1) % period != 0
    return "chunked" if chunked else FULL


def _interval(config: Config, index: int) -> str:
    period = config.size("full_attention_interval", 4)
    return FULL if period and (index + 1) % period == 0 else "linear"


RULES: dict[str, Callable[[Config, int], str]] = {
    "none": lambda _config, _index: FULL, "window": _if_window, "qwen": _qwen, "qwen_moe": _qwen_moe,
    "pattern4": _pattern(4), "pattern6": _pattern(6), "llama4": _llama4, "afmoe": _afmoe,
    "mimo": lambda _config, index: FULL if index == 0 or (index + 1) % 6 == 0 else SLIDING,
    "linear": lambda _config, _index: "linear", "interval": _interval, "last": _last,
    "first4": _every(4, 0), "every2": _every(2), "every4": _every(4), "every5": _every(5),
    "every6": _every(6),
}  # fmt: skip


def kinds(config: Config, rule: str) -> list[str]:
    """One kind per layer."""
    count = config.layers()
    listed = config.items("layer_types")
    if not listed or rule == "ignore":
        found = RULES["none" if rule == "ignore" else rule]
        return [found(config, index) for index in range(count)]
    if len(listed) < count or not all(isinstance(kind, str) for kind in listed):
        config.bad("layer_types", f"must name the kind of each of the {count} layers")
    return [KINDS.get(kind, kind) for kind in listed[:count]]


Maker: TypeAlias = Callable[[Config, Family, str, bool], Block]

Key = TypeVar("Key", bound="Hashable")


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


def value_width(config: Config, family: Family, size: Heads) -> int:
    """Channels of a value head."""
    return (config.maybe(family.value_dim) if family.value_dim else None) or size.dim


def attention(config: Config, family: Family, size: Heads) -> Weights:
    """Grouped-query attention."""
    hidden = config.size("hidden_size")
    bias = on(config, family.qkv_bias)
    name = family.attention
    q, kv = size.heads * size.dim, size.kv * size.dim
    value = value_width(config, family, size)
    found = [
        *modules.linear(f"{name}.q_proj", q, hidden, "column", bias=bias),
        *modules.linear(f"{name}.k_proj", kv, hidden, "kv", bias=bias),
        *modules.linear(f"{name}.v_proj", size.kv * value, hidden, "kv", bias=bias),
        *modules.linear(
            f"{name}.{family.out_name}", hidden, size.heads * value, "row", bias=on(config, family.out_bias)
        ),
    ]
    if family.gate:
        wide = size.heads if family.gate == "head" else q
        found += modules.linear(f"{name}.g_proj", wide, hidden, "column")
    if family.sinks:
        found += modules.vector(f"{name}.sinks", size.heads, part="attention", shard="column")
    return (*found, *_qk_norms(config, family, size))


def _qk_norms(config: Config, family: Family, size: Heads) -> Weights:
    if not family.qk_norm or not on(config, family.qk_norm_if):
        return ()
    q, k = f"{family.attention}.q_norm", f"{family.attention}.k_norm"
    if family.qk_norm == "head":
        return (*modules.norm(q, size.dim, family.norm), *modules.norm(k, size.dim, family.norm))
    if family.qk_norm == "full":
        return (
            *modules.norm(q, size.heads * size.dim, family.norm),
            *modules.norm(k, size.kv * size.dim, family.norm),
        )
    return (
        *modules.vector(q, size.heads, size.dim, part="norm", shard="column"),
        *modules.vector(k, size.kv, size.dim, part="norm", shard="kv"),
    )


def dense_mlp(config: Config, family: Family, width: int | None = None) -> Weights:
    """The feed-forward part of a dense layer."""
    hidden = config.size("hidden_size")
    width = config.size(family.width) if width is None else width
    bias = on(config, family.mlp_bias)
    if family.mlp == "plain":
        return modules.plain_mlp("mlp", hidden, width, bias=bias, names=family.mlp_names)
    return modules.gated_mlp("mlp", hidden, width, bias=bias, fused=family.mlp == "fused")


def is_sparse(config: Config, moe: Moe, index: int) -> bool:
    """Whether layer `index` has experts."""
    listed = config.items("mlp_layer_types")
    if listed and index < len(listed):
        return bool(listed[index] == "sparse")
    if moe.layers == "first_dense":
        return index >= (moe.first if isinstance(moe.first, int) else config.size(moe.first, 0))
    if moe.layers == "interval":
        every, last = config.size("moe_layer_interval", 1), config.raw("moe_layer_end_index", -1)
        last = last if isinstance(last, int) and last >= 0 else config.layers() - 1
        inside = config.size("moe_layer_start_index", 0) <= index <= last
        return inside and every > 0 and (index + 1) % every == 0
    if moe.layers == "steps":
        step = config.size("decoder_sparse_step", 1)
        listed_dense = config.items("mlp_only_layers") or []
        return index not in listed_dense and step > 0 and (index + 1) % step == 0
    return True


def experts(config: Config, moe: Moe, bias: bool = False) -> Weights:
    """Router, routed and shared experts of one layer."""
    hidden, count, width = config.size("hidden_size"), config.size(moe.experts), config.size(moe.width)
    latent = config.maybe("routed_expert_hidden_size")
    found = [
        *modules.linear("mlp.gate", count, hidden, bias=moe.router_bias, part="router"),
        *modules.experts(
            "mlp.experts", count, latent or hidden, width, gated=moe.gated, bias=moe.expert_bias
        ),
    ]
    if latent:
        found += modules.linear("mlp.routed_expert_down_proj", latent, hidden, part="mlp")
        found += modules.linear("mlp.routed_expert_up_proj", hidden, latent, part="mlp")
    if on(config, moe.correction):
        found += modules.vector("mlp.gate.e_score_correction_bias", count, part="router")
    shared = 0
    if moe.shared_width:
        shared = config.size(moe.shared_width, 0)
    elif moe.shared_count:
        shared = width * (config.maybe(moe.shared_count) or 0)
    if shared:
        found += modules.gated_mlp("mlp.shared_experts", hidden, shared, bias=bias, part="shared_expert")
    if shared and moe.shared_gate:
        found += modules.linear("mlp.shared_expert_gate", 1, hidden, part="shared_expert")
    return tuple(found)


def _length(config: Config, field: str) -> int:
    """The length of an extra vector."""
    return 1 if field == "1" else head_sizes(config).dim if field == "head_dim" else config.size(field)


def norms(config: Config, family: Family) -> Weights:
    """The norms of one layer, and its extra vectors."""
    hidden = config.size("hidden_size")
    flag = config.flag(family.norm_switch.lstrip("-"), True) if family.norm_switch else True
    kept = flag != family.norm_switch.startswith("-")
    names = (*family.norms, *(family.switched_norms if kept else ()))
    extras = (w for name, field in family.extras for w in modules.vector(name, _length(config, field)))
    return (*(w for name in names for w in modules.norm(name, hidden, family.norm)), *extras)


def mixer_of(kind: str, config: Config, size: Heads, value: int | None = None) -> Mixer:
    """What a layer of grouped-query attention caches."""
    window = {"sliding": "sliding_window", "chunked": "attention_chunk_size"}.get(kind)
    seen = config.maybe(window) if window else None
    if window and (not seen or seen >= config.size("max_position_embeddings", LARGEST)):
        kind, seen = "full", None
    real: MixerKind = "sliding" if kind == "sliding" else "chunked" if kind == "chunked" else "full"
    return Mixer(real, size.heads, size.kv, size.dim, value or size.dim, window=seen)


def standard_block(config: Config, family: Family, kind: str, sparse: bool) -> Block:
    """Attention, feed-forward, norms."""
    size = head_sizes(config)
    mixer = mixer_of(kind, config, size, value_width(config, family, size))
    return finish_block(config, family, mixer, attention(config, family, size), sparse)


def finish_block(config: Config, family: Family, mixer: Mixer, attend: Weights, sparse: bool) -> Block:
    """A layer from its token mixer: feed-forward part and norms added."""
    moe = family.moe
    if not (sparse and moe):
        return Block(mixer, (*attend, *dense_mlp(config, family), *norms(config, family)))
    count = config.size(moe.experts)
    active = min(config.size(moe.per_token, count), count)
    return Block(
        mixer, (*attend, *experts(config, moe, on(config, family.mlp_bias)), *norms(config, family)), count,
        active,
    )  # fmt: skip


def distinct(keys: Sequence[Key], make: Callable[[Key], Block]) -> tuple[Block, ...]:
    """One layer for each key; equal keys share one object."""
    made = {key: make(key) for key in dict.fromkeys(keys)}
    return tuple(made[key] for key in keys)


def stack(config: Config, family: Family, make: Maker = standard_block) -> tuple[Block, ...]:
    """All layers."""
    keys = [
        (kind, bool(family.moe and is_sparse(config, family.moe, index)))
        for index, kind in enumerate(kinds(config, family.windows))
    ]
    return distinct(keys, lambda key: make(config, family, *key))


def assemble(config: Config, family: Family, blocks: tuple[Block, ...],
             rope_dim: int | None = None) -> Inventory:  # fmt: skip
    """A decoder's body without its head."""
    hidden, vocabulary = config.size("hidden_size"), config.size("vocab_size")
    stem = modules.embedding("embed_tokens", vocabulary, hidden)
    if family.positions:
        rows = config.size(family.positions) + family.position_offset
        stem = (*stem, *modules.positions("embed_positions", rows, hidden))
    if family.embed_norm:
        stem = (*stem, *modules.norm("embed_norm", hidden, family.norm))
    top = modules.norm(family.final_norm, hidden, family.norm) if family.final_norm else ()
    if rope_dim is None:
        rope_dim = 0 if family.positions else head_sizes(config).dim
    return Inventory(
        blocks, stem, top, hidden=hidden, vocabulary=vocabulary,
        intermediate=config.maybe(family.width) or 0, rope_dim=rope_dim,
    )  # fmt: skip


def decoder(config: Config, architecture: str, family: Family) -> Inventory:
    """A decoder of standard blocks."""
    return modules.with_head(config, assemble(config, family, stack(config, family)), architecture, family)
