"""Multi-head latent attention (DeepSeek V2 and later), with the sparse indexer of V3.2 and GLM-5."""

from functools import partial

from memserve.model.config import Config
from memserve.model.recipes import decoder, heads, modules
from memserve.model.recipes.family import Family, Moe
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.inventory import Inventory
from memserve.model.recipes.modules import Weights
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
    return heads.with_head(config, body, architecture, family)


MOE = Moe("n_routed_experts", shared_count="n_shared_experts", layers="first_dense")
FAMILIES: dict[str, Family] = {
    "deepseek_v2": Family(mlp_bias="mlp_bias", moe=MOE), "deepseek_v3": Family(moe=MOE),
    "deepseek_v32": Family(moe=MOE), "glm_moe_dsa": Family(moe=MOE), "sarvam_mla": Family(moe=MOE),
    "mistral4": Family(moe=MOE), "glm4_moe_lite": Family(moe=MOE._replace(first=1)), "youtu": Family(),
    "minicpm3": Family(mlp_bias="mlp_bias"),
}  # fmt: skip
RECIPES: dict[str, Recipe] = {kind: partial(latent, family=row) for kind, row in FAMILIES.items()}
