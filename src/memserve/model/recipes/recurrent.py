"""Layers that keep a state instead of a cache: the gated delta nets of Qwen and Kimi."""

from dataclasses import replace
from functools import partial

from memserve.model.config import Config
from memserve.model.recipes import decoder, mla, modules
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.modules import Family, Inventory, Moe, Weights
from memserve.model.spec import Block, Mixer


def delta_net(config: Config, *, fused: bool) -> tuple[Mixer, Weights]:
    """The gated delta net of Qwen3-Next (`fused`) and Qwen3.5."""
    hidden, kernel = config.size("hidden_size"), config.size("linear_conv_kernel_dim")
    k_heads, v_heads = config.size("linear_num_key_heads"), config.size("linear_num_value_heads")
    k_dim, v_dim = config.size("linear_key_head_dim"), config.size("linear_value_head_dim")
    keys, values = k_heads * k_dim, v_heads * v_dim
    convolved = 2 * keys + values
    name = "linear_attn"
    if fused:
        into = {"in_proj_qkvz": convolved + values, "in_proj_ba": 2 * v_heads}
    else:
        into = {"in_proj_qkv": convolved, "in_proj_z": values, "in_proj_b": v_heads, "in_proj_a": v_heads}
    weights = (
        *(
            w
            for n, out in into.items()
            for w in modules.linear(f"{name}.{n}", out, hidden, "column", part="mixer")
        ),
        *modules.vector(f"{name}.conv1d", convolved, 1, kernel, part="mixer", shard="column"),
        *modules.vector(f"{name}.dt_bias", v_heads, part="mixer", shard="column"),
        *modules.vector(f"{name}.A_log", v_heads, part="mixer", shard="column"),
        *modules.norm(f"{name}.norm", v_dim),
        *modules.linear(f"{name}.out_proj", hidden, values, "row", part="mixer"),
    )
    state = ((convolved, max(kernel - 1, 0)), (v_heads, k_dim, v_dim))
    return Mixer("linear", v_heads, k_heads, k_dim, v_dim, state=state, state_dtype=_dtype(config)), weights


def _dtype(config: Config) -> str:
    return config.text("mamba_ssm_dtype") or config.text("mamba_ssm_cache_dtype")


def gated_attention(config: Config, family: Family) -> Weights:
    """Attention whose query projection also gives an output gate, so is twice as wide."""
    size = decoder.head_sizes(config)
    plain = decoder.attention(config, family, size)
    return tuple(
        replace(w, shape=(2 * w.shape[0], *w.shape[1:])) if w.name.startswith("self_attn.q_proj") else w
        for w in plain
    )


def hybrid_block(config: Config, family: Family, kind: str, sparse: bool) -> Block:
    """A delta-net layer or a gated full-attention layer."""
    if kind == "linear":
        mixer, attend = delta_net(config, fused=config.kind == "qwen3_next")
    else:
        mixer = decoder.mixer_of(kind, config, decoder.head_sizes(config))
        attend = gated_attention(config, family)
    return decoder.finish_block(config, family, mixer, attend, sparse)


def hybrid(config: Config, architecture: str, family: Family) -> Inventory:
    """Qwen3-Next and Qwen3.5."""
    body = decoder.assemble(config, family, decoder.stack(config, family, hybrid_block))
    return modules.with_head(config, body, architecture, family)


def _kimi_field(config: Config, inner: str, field: str) -> int:
    value = config.table("linear_attn_config").get(inner)
    return value if isinstance(value, int) and 0 < value < 1 << 20 else config.size(field)


def kimi_delta(config: Config) -> tuple[Mixer, Weights]:
    """Kimi's delta attention: a decay for every channel."""
    hidden = config.size("hidden_size")
    heads = _kimi_field(config, "num_heads", "linear_num_heads")
    dim = _kimi_field(config, "head_dim", "linear_head_dim")
    kernel = _kimi_field(config, "short_conv_kernel_size", "linear_conv_kernel_dim")
    wide, name = heads * dim, "self_attn"
    shapes = {
        "q_proj": (wide, hidden), "k_proj": (wide, hidden), "v_proj": (wide, hidden),
        "forget_gate.f_b_proj": (wide, dim), "b_proj": (heads, hidden), "g_b_proj": (wide, dim),
    }  # fmt: skip
    weights = (
        *(w for n, s in shapes.items() for w in modules.linear(f"{name}.{n}", *s, "column", part="mixer")),
        *modules.linear(f"{name}.forget_gate.f_a_proj", dim, hidden, part="mixer"),
        *modules.linear(f"{name}.g_a_proj", dim, hidden, part="mixer"),
        *modules.vector(f"{name}.conv1d", 3 * wide, 1, kernel, part="mixer", shard="column"),
        *modules.vector(f"{name}.forget_gate.dt_bias", wide, part="mixer", shard="column"),
        *modules.vector(f"{name}.forget_gate.A_log", heads, part="mixer", shard="column"),
        *modules.norm(f"{name}.o_norm", dim),
        *modules.linear(f"{name}.o_proj", hidden, wide, "row", part="mixer"),
    )
    state = ((3 * wide, max(kernel - 1, 0)), (heads, dim, dim))
    return Mixer("linear", heads, heads, dim, dim, state=state, state_dtype=_dtype(config)), weights


def _kimi_kind(config: Config, index: int) -> str:
    listed = config.items("layer_types")
    if listed and index < len(listed):
        return "full" if listed[index] == "full_attention" else "linear"
    table = config.table("linear_attn_config")
    if "full_attn_layers" in table and "kda_layers" in table:
        return "full" if index + 1 in table["full_attn_layers"] else "linear"
    return "full" if index and index % 4 == 0 else "linear"


def kimi(config: Config, architecture: str, family: Family) -> Inventory:
    """Kimi-Linear: delta attention with a latent-attention layer now and then."""
    listed, first = config.items("mlp_layer_types"), config.size("first_k_dense_replace", 1)
    keys = [
        (_kimi_kind(config, index), listed[index] == "sparse" if listed else index >= first)
        for index in range(config.layers())
    ]
    found = decoder.distinct(keys, lambda key: _kimi_block(config, family, *key))
    rope_dim = 0 if config.flag("mla_use_nope") else config.size("qk_rope_head_dim")
    body = decoder.assemble(config, family, found, rope_dim=rope_dim)
    return modules.with_head(config, body, architecture, family)


def _kimi_block(config: Config, family: Family, kind: str, sparse: bool) -> Block:
    if kind == "linear":
        return decoder.finish_block(config, family, *kimi_delta(config), sparse)
    return decoder.finish_block(config, family, mla.mixer(config, False), mla.attention(config), sparse)


FAMILIES: dict[str, Family] = {
    "qwen3_next": Family(
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="interval",
        moe=Moe(shared_width="shared_expert_intermediate_size", shared_gate=True, layers="steps"),
    ),
    "qwen3_5_text": Family(
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="interval"
    ),
    "qwen3_5_moe_text": Family(
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="interval",
        moe=Moe(shared_width="shared_expert_intermediate_size", shared_gate=True),
        width="moe_intermediate_size",
    ),
}  # fmt: skip
KIMI = Family(ties=False, moe=Moe("num_local_experts", shared_count="n_shared_experts"))

RECIPES: dict[str, Recipe] = {kind: partial(hybrid, family=row) for kind, row in FAMILIES.items()}
RECIPES["kimi_linear"] = partial(kimi, family=KIMI)
