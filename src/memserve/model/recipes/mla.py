"""Multi-head latent attention: DeepSeek V2 and later, the sparse indexer of V3.2 and GLM-5, V4."""

from functools import partial

from memserve.model.config import Config
from memserve.model.recipes import decoder, modules
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.modules import Family, Inventory, Moe, Weights
from memserve.model.spec import Block, Mixer


def value_width(config: Config) -> int:
    """Channels of a value head: hidden / heads unless written."""
    return config.maybe("v_head_dim") or config.size("hidden_size") // decoder.head_sizes(config).heads


def attention(config: Config) -> Weights:
    """Latent queries and keys; the down-projections live whole on every card."""
    hidden, heads, rank = (config.size(f) for f in ("hidden_size", "num_attention_heads", "kv_lora_rank"))
    nope, rope = config.size("qk_nope_head_dim"), config.size("qk_rope_head_dim")
    value, q_rank = value_width(config), config.maybe("q_lora_rank")
    bias = config.flag("attention_bias")
    q_out = heads * (nope + rope)
    if q_rank is None:
        query = modules.linear("self_attn.q_proj", q_out, hidden, "column")
    else:
        query = (
            *modules.linear("self_attn.q_a_proj", q_rank, hidden, bias=bias),
            *modules.norm("self_attn.q_a_layernorm", q_rank),
            *modules.linear("self_attn.q_b_proj", q_out, q_rank, "column"),
        )
    return (
        *query,
        *modules.linear("self_attn.kv_a_proj_with_mqa", rank + rope, hidden, bias=bias),
        *modules.norm("self_attn.kv_a_layernorm", rank),
        *modules.linear("self_attn.kv_b_proj", heads * (nope + value), rank, "column"),
        *modules.linear("self_attn.o_proj", hidden, heads * value, "row", bias=bias),
    )


def indexer(config: Config) -> Weights:
    """The small attention that picks the tokens the large one looks at; whole on every card."""
    hidden, width = config.size("hidden_size"), config.size("index_head_dim")
    heads, q_rank = config.size("index_n_heads"), config.size("q_lora_rank")
    name = "self_attn.indexer"
    return (
        *modules.linear(f"{name}.wq_b", heads * width, q_rank),
        *modules.linear(f"{name}.wk", width, hidden),
        *modules.norm(f"{name}.k_norm", width, "layer"),
        *modules.linear(f"{name}.weights_proj", heads, hidden),
    )


def mixer(config: Config, indexed: bool) -> Mixer:
    """One latent and one rotary key per token, shared by all heads."""
    return Mixer(
        "mla", heads=config.size("num_attention_heads"), kv_heads=1,
        head_dim=config.size("qk_nope_head_dim") + config.size("qk_rope_head_dim"),
        value_dim=value_width(config), kv_lora_rank=config.size("kv_lora_rank"),
        rope_dim=config.size("qk_rope_head_dim"), index_dim=config.size("index_head_dim") if indexed else 0,
    )  # fmt: skip


def indexer_kinds(config: Config) -> list[bool]:
    """Which layers have an indexer of their own."""
    count = config.layers()
    if config.raw("index_head_dim") is None:
        return [False] * count
    listed = config.items("indexer_types")
    if listed:
        return [kind != "shared" for kind in listed]
    if config.kind != "glm_moe_dsa":
        return [True] * count
    pattern = config.raw("index_topk_pattern")
    if pattern:
        return [kind in ("F", "full") for kind in pattern]
    period, offset = max(config.size("index_topk_freq", 1), 1), config.size("index_skip_topk_offset", 2)
    return [max(index - offset + 1, 0) % period == 0 for index in range(count)]


def block(config: Config, family: Family, indexed: bool, sparse: bool) -> Block:
    """One layer of latent attention."""
    attend = (*attention(config), *(indexer(config) if indexed else ()))
    return decoder.finish_block(config, family, mixer(config, indexed), attend, sparse)


def latent(config: Config, architecture: str, family: Family) -> Inventory:
    """A decoder of latent attention throughout."""
    indexed = indexer_kinds(config)
    if len(indexed) < config.layers():
        config.bad("indexer_types", "must name every layer")
    keys = [
        (indexed[index], bool(family.moe and decoder.is_sparse(config, family.moe, index)))
        for index in range(config.layers())
    ]
    found = decoder.distinct(keys, lambda key: block(config, family, *key))
    body = decoder.assemble(config, family, found, rope_dim=config.size("qk_rope_head_dim"))
    return modules.with_head(config, body, architecture, family)


MOE = Moe("n_routed_experts", shared_count="n_shared_experts", layers="first_dense")
FAMILIES: dict[str, Family] = {
    "deepseek_v2": Family(mlp_bias="mlp_bias", moe=MOE), "deepseek_v3": Family(moe=MOE),
    "deepseek_v32": Family(moe=MOE), "glm_moe_dsa": Family(moe=MOE), "sarvam_mla": Family(moe=MOE),
    "mistral4": Family(moe=MOE), "glm4_moe_lite": Family(moe=MOE._replace(first=1)), "youtu": Family(),
    "minicpm3": Family(mlp_bias="mlp_bias"),
}  # fmt: skip


SPARSE, HEAVY, SLIDING = "compressed_sparse_attention", "heavily_compressed_attention", "sliding_attention"
RATES = {SPARSE: 4, HEAVY: 128}
OLDER_FIELDS = {SPARSE: "compress_rate_csa", HEAVY: "compress_rate_hca"}
RATIOS = {0: SLIDING, 4: SPARSE, 128: HEAVY}
FAMILY = Family(
    mlp_bias="mlp_bias", width="moe_intermediate_size",
    moe=Moe("n_routed_experts", shared_width="moe_intermediate_size"),
)  # fmt: skip


def _rate(config: Config, kind: str) -> int:
    """Tokens that one entry behind the window stands for."""
    if kind == SLIDING:
        return 1
    written = config.maybe(OLDER_FIELDS[kind]) or config.table("compress_rates").get(kind)
    return written if isinstance(written, int) and 0 < written <= 1 << 20 else RATES[kind]


def _kinds(config: Config) -> list[str]:
    """How each layer compresses: as listed, else two heavy ones, then sparse and heavy in turn."""
    count = config.layers()
    listed, ratios = config.items("layer_types"), config.items("compress_ratios")
    if not listed and ratios:
        listed = [RATIOS.get(one) if isinstance(one, int) else None for one in ratios]
    if not listed:
        return [HEAVY if index < 2 or index % 2 == 0 else SPARSE for index in range(count)]
    if len(listed) < count or any(kind not in RATIOS.values() for kind in listed):
        config.bad("layer_types", f"must name the kind of each of the {count} layers")
    return list(listed[:count])


def _compressor(config: Config, name: str, kind: str, width: int) -> Weights:
    """A mean of tokens with learned gates; the sparse kind overlaps two windows, so is twice as wide."""
    hidden, wide = config.size("hidden_size"), 2 * width if kind == SPARSE else width
    return (
        *modules.vector(f"{name}.position_bias", _rate(config, kind), wide, part="attention"),
        *modules.linear(f"{name}.kv_proj", wide, hidden),
        *modules.linear(f"{name}.gate_proj", wide, hidden),
        *modules.norm(f"{name}.kv_norm", width),
    )


def _attention(config: Config, kind: str) -> Weights:
    hidden, count, dim = (config.size(f) for f in ("hidden_size", "num_attention_heads", "head_dim"))
    rank, groups, low = (config.size(f) for f in ("q_lora_rank", "o_groups", "o_lora_rank"))
    name, inner = "self_attn", "self_attn.compressor"
    found = (
        *modules.vector(f"{name}.sinks", count, part="attention", shard="column"),
        *modules.linear(f"{name}.q_a_proj", rank, hidden),
        *modules.norm(f"{name}.q_a_norm", rank),
        *modules.linear(f"{name}.q_b_proj", count * dim, rank, "column"),
        *modules.linear(f"{name}.kv_proj", dim, hidden),
        *modules.norm(f"{name}.kv_norm", dim),
        *modules.linear(f"{name}.o_a_proj", groups * low, count * dim // max(groups, 1), "column"),
        *modules.linear(f"{name}.o_b_proj", hidden, groups * low, "row"),
    )
    if kind == SLIDING:
        return found
    found += _compressor(config, inner, kind, dim)
    if kind == HEAVY:
        return found
    index_heads, index_dim = config.size("index_n_heads"), config.size("index_head_dim")
    return (
        *found,
        *_compressor(config, f"{inner}.indexer", kind, index_dim),
        *modules.linear(f"{inner}.indexer.q_b_proj", index_heads * index_dim, rank),
        *modules.linear(f"{inner}.indexer.scorer.weights_proj", index_heads, hidden),
    )


def _streams(config: Config, name: str) -> Weights:
    """The mixing of residual streams around one half of a layer."""
    many = config.size("hc_mult")
    rows = (2 + many) * many
    return (
        *modules.vector(f"{name}.fn", rows, many * config.size("hidden_size")),
        *modules.vector(f"{name}.base", rows),
        *modules.vector(f"{name}.scale", 3),
    )


def rotary(config: Config) -> int:
    """Channels of a head that are rotated."""
    written, share = config.maybe("qk_rope_head_dim"), config.raw("partial_rotary_factor")
    if isinstance(share, float) and 0 < share <= 1:
        return int(config.size("head_dim") * share)
    return written or config.size("head_dim") // 8


def _mixer(config: Config, kind: str) -> Mixer:
    dim, rope = config.size("head_dim"), rotary(config)
    return Mixer(
        "mla", config.size("num_attention_heads"), 1, dim, dim, window=config.maybe("sliding_window"),
        kv_lora_rank=max(dim - rope, 0), rope_dim=rope, stride=_rate(config, kind),
        index_dim=config.size("index_head_dim") if kind == SPARSE else 0,
    )  # fmt: skip


def _block(config: Config, kind: str) -> Block:
    attend = (*_attention(config, kind), *_streams(config, "attn_hc"), *_streams(config, "ffn_hc"))
    return decoder.finish_block(config, FAMILY, _mixer(config, kind), attend, True)


def deepseek_v4(config: Config, architecture: str) -> Inventory:
    """The decoder, with the mixing of its streams into one before the head."""
    many = config.size("hc_mult")
    blocks = decoder.distinct(_kinds(config), lambda kind: _block(config, kind))
    body = decoder.assemble(config, FAMILY, blocks, rope_dim=rotary(config)).adding(
        top=(
            *modules.vector("hc_head.hc_fn", many, many * config.size("hidden_size")),
            *modules.vector("hc_head.hc_base", many),
            *modules.vector("hc_head.hc_scale", 1),
        )
    )
    return modules.with_head(config, body, architecture, FAMILY)


RECIPES: dict[str, Recipe] = {
    "deepseek_v4": deepseek_v4, **{kind: partial(latent, family=row) for kind, row in FAMILIES.items()},
}  # fmt: skip
