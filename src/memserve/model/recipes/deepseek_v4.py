"""DeepSeek-V4: one latent for keys and values, compressed behind a window, and several residual streams."""

from memserve.model.config import Config
from memserve.model.recipes import decoder, heads, modules
from memserve.model.recipes.family import Family, Moe
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.inventory import Inventory
from memserve.model.recipes.modules import Weights
from memserve.model.spec import Block, Mixer

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
    return heads.with_head(config, body, architecture, FAMILY)


RECIPES: dict[str, Recipe] = {"deepseek_v4": deepseek_v4}
