"""State-space layers, alone and between attention: Mamba, Jamba, Bamba, Falcon-H1, Granite 4, Nemotron-H."""

from collections.abc import Sequence
from functools import partial

from memserve.model.config import MOST_LAYERS, Config
from memserve.model.recipes import decoder, modules
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.modules import Family, Inventory, Moe, Weights
from memserve.model.spec import Block, Mixer


def _time_rank(config: Config, field: str) -> int:
    """Width of the time step: a sixteenth of the model's where it says `auto`."""
    return -(-config.size("hidden_size") // 16) if config.raw(field) == "auto" else config.size(field)


def selective(config: Config, name: str, prefix: str = "", *, norms: bool = False) -> tuple[Mixer, Weights]:
    """The first Mamba's layer. `prefix`: of its fields, as Jamba writes them."""
    field = dict(zip(("state", "conv", "rank", "bias", "conv_bias"), FIELDS[prefix], strict=True))
    hidden, size, kernel = config.size("hidden_size"), config.size(field["state"]), config.size(field["conv"])
    inner, rank = config.size(f"{prefix}expand", 2) * hidden, _time_rank(config, field["rank"])
    bias = config.flag(field["bias"])
    weights = (
        *modules.vector(f"{name}.A_log", inner, size, part="mixer", shard="column"),
        *modules.vector(f"{name}.D", inner, part="mixer", shard="column"),
        *_convolution(f"{name}.conv1d", inner, kernel, config.flag(field["conv_bias"], True)),
        *modules.linear(f"{name}.in_proj", 2 * inner, hidden, "column", bias=bias, part="mixer"),
        *modules.linear(f"{name}.x_proj", rank + 2 * size, inner, "row", part="mixer"),
        *modules.linear(f"{name}.dt_proj", inner, rank, "column", bias=True, part="mixer"),
        *modules.linear(f"{name}.out_proj", hidden, inner, "row", bias=bias, part="mixer"),
    )
    if norms:
        widths = {"dt": rank, "b": size, "c": size}
        weights += tuple(w for n, wide in widths.items() for w in modules.norm(f"{name}.{n}_layernorm", wide))
    return Mixer(
        "mamba", state=((inner, max(kernel - 1, 0)), (inner, size)), state_dtype=_dtype(config)
    ), weights


FIELDS = {
    "": ("state_size", "conv_kernel", "time_step_rank", "use_bias", "use_conv_bias"),
    "mamba_": ("mamba_d_state", "mamba_d_conv", "mamba_dt_rank", "mamba_proj_bias", "mamba_conv_bias"),
}


def _convolution(name: str, width: int, kernel: int, bias: bool) -> Weights:
    weight = modules.vector(name, width, 1, kernel, part="mixer", shard="column")
    return (*weight, *modules.vector(f"{name}.bias", width, part="mixer", shard="column")) if bias else weight


def _dtype(config: Config) -> str:
    return config.text("mamba_ssm_dtype") or config.text("mamba_ssm_cache_dtype")


def multi_head(
    config: Config, name: str, count: int, dim: int, *, groups: int, size: int, kernel: int,
    bias: bool, out_bias: bool, conv_bias: bool, norm: bool = True,
) -> tuple[Mixer, Weights]:  # fmt: skip
    """Mamba 2's layer: heads with a state each."""
    hidden, inner = config.size("hidden_size"), count * dim
    convolved = inner + 2 * groups * size
    into = inner + convolved + count
    weights = (
        *(w for n in ("dt_bias", "A_log", "D")
          for w in modules.vector(f"{name}.{n}", count, part="mixer", shard="column")),
        *_convolution(f"{name}.conv1d", convolved, kernel, conv_bias),
        *modules.linear(f"{name}.in_proj", into, hidden, "column", bias=bias, part="mixer"),
        *(modules.norm(f"{name}.norm", inner) if norm else ()),
        *modules.linear(f"{name}.out_proj", hidden, inner, "row", bias=out_bias, part="mixer"),
    )  # fmt: skip
    state = ((convolved, max(kernel - 1, 0)), (count, dim, size))
    return Mixer("mamba", count, count, 0, 0, state=state, state_dtype=_dtype(config)), weights


def _second(config: Config, name: str, *, norm: bool = True,
            out_bias: str = "mamba_proj_bias") -> tuple[Mixer, Weights]:  # fmt: skip
    """Mamba 2's layer with the fields that hybrids use."""
    count = config.size("mamba_n_heads")
    inner = config.maybe("mamba_d_ssm") or config.size("mamba_expand", 2) * config.size("hidden_size")
    if not count:
        config.bad("mamba_n_heads", "must not be zero")
    return multi_head(
        config, name, count, inner // count, groups=config.size("mamba_n_groups"),
        size=config.size("mamba_d_state"), kernel=config.size("mamba_d_conv"),
        bias=config.flag("mamba_proj_bias"), out_bias=config.flag(out_bias),
        conv_bias=config.flag("mamba_conv_bias", True), norm=norm,
    )  # fmt: skip


def _decoder(config: Config, architecture: str, family: Family, blocks: Sequence[Block],
             rope_dim: int) -> Inventory:  # fmt: skip
    body = decoder.assemble(config, family, tuple(blocks), rope_dim=rope_dim)
    return modules.with_head(config, body, architecture, family)


PLAIN = Family(norms=("norm",), final_norm="norm_f")


def mamba(config: Config, architecture: str) -> Inventory:
    """Mamba, and Falcon's of it."""
    mixer, weights = selective(config, "mixer")
    block = Block(mixer, (*weights, *decoder.norms(config, PLAIN)))
    return _decoder(config, architecture, PLAIN, (block,) * config.layers(), 0)


def mamba2(config: Config, architecture: str) -> Inventory:
    """Mamba 2."""
    bias = config.flag("use_bias")
    mixer, weights = multi_head(
        config, "mixer", config.size("num_heads"), config.size("head_dim"), groups=config.size("n_groups"),
        size=config.size("state_size"), kernel=config.size("conv_kernel"), bias=bias, out_bias=bias,
        conv_bias=config.flag("use_conv_bias", True),
    )  # fmt: skip
    block = Block(mixer, (*weights, *decoder.norms(config, PLAIN)))
    return _decoder(config, architecture, PLAIN, (block,) * config.layers(), 0)


JAMBA = Family(moe=Moe(width="intermediate_size"), final_norm="final_layernorm")


def jamba(config: Config, architecture: str) -> Inventory:
    """Jamba: attention in each n-th layer, experts in each m-th."""

    def every(index: int, kind: str) -> bool:
        period = config.size(f"{kind}_layer_period")
        return period > 0 and index % period == config.size(f"{kind}_layer_offset")

    many = config.size("num_experts") > 1
    keys = [(every(i, "attn"), many and every(i, "expert")) for i in range(config.layers())]

    def make(key: tuple[bool, bool]) -> Block:
        if key[0]:
            return decoder.standard_block(config, JAMBA, "full", key[1])
        return decoder.finish_block(config, JAMBA, *selective(config, "mamba", "mamba_", norms=True), key[1])

    return _decoder(config, architecture, JAMBA, decoder.distinct(keys, make), 0)


HYBRID = Family(
    qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias", final_norm="final_layernorm"
)


def bamba(config: Config, architecture: str) -> Inventory:
    """Bamba: Mamba 2, and attention in the layers listed."""
    attending = config.items("attn_layer_indices") or []

    def make(attends: bool) -> Block:
        if attends:
            return decoder.standard_block(config, HYBRID, "full", False)
        return decoder.finish_block(config, HYBRID, *_second(config, "mamba"), False)

    blocks = decoder.distinct([index in attending for index in range(config.layers())], make)
    return _decoder(config, architecture, HYBRID, blocks, decoder.head_sizes(config).dim // 2)


def falcon_h1(config: Config, architecture: str) -> Inventory:
    """Falcon-H1: Mamba 2 and attention side by side in every layer."""
    _, state = _second(config, "mamba", norm=config.flag("mamba_rms_norm"), out_bias="projectors_bias")
    block = decoder.standard_block(config, HYBRID, "full", False)
    block = Block(block.mixer, (*state, *block.weights))
    return _decoder(config, architecture, HYBRID, (block,) * config.layers(), decoder.head_sizes(config).dim)


GRANITE = Family(
    qkv_bias="attention_bias", out_bias="attention_bias", width="shared_intermediate_size",
    moe=Moe("num_local_experts", width="intermediate_size", shared_width="shared_intermediate_size"),
)  # fmt: skip


def granite_hybrid(config: Config, architecture: str) -> Inventory:
    """Granite 4: Mamba 2 or attention, experts beside a dense part."""
    listed = decoder.kinds(config, "linear")
    sparse = bool(config.maybe("num_local_experts"))

    def make(kind: str) -> Block:
        if kind == "full":
            return decoder.standard_block(config, GRANITE, kind, sparse)
        return decoder.finish_block(config, GRANITE, *_second(config, "mamba"), sparse)

    rotated = config.text("position_embedding_type") == "rope"
    rope_dim = decoder.head_sizes(config).dim if rotated else 0
    return _decoder(config, architecture, GRANITE, decoder.distinct(listed, make), rope_dim)


NEMOTRON = Family(attention="mixer", norms=("norm",), ties=False, mlp="plain",
                  mlp_bias="mlp_bias", final_norm="norm_f")  # fmt: skip
LETTERS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
OLDER = {"mamba": "linear_attention", "attention": "full_attention"}


def _nemotron_kinds(config: Config) -> list[str]:
    """What each layer is: listed, or a letter each."""
    listed, pattern = (
        config.items("layers_block_type") or config.items("layer_types"),
        config.text("hybrid_override_pattern"),
    )
    kinds = listed or [LETTERS.get(letter) for letter in pattern] or list(LETTERS.values())
    kinds = [OLDER.get(kind, kind) if isinstance(kind, str) else kind for kind in kinds]
    if len(kinds) > MOST_LAYERS or any(kind not in LETTERS.values() for kind in kinds):
        config.bad("layers_block_type", "must name the kind of each layer")
    return kinds


def _nemotron_experts(config: Config) -> Block:
    hidden, count, width = (
        config.size(f) for f in ("hidden_size", "n_routed_experts", "moe_intermediate_size")
    )
    latent, bias = config.maybe("moe_latent_size"), config.flag("mlp_bias")
    shared = config.size("moe_shared_expert_intermediate_size")
    weights = (
        *modules.norm("norm", hidden),
        *modules.linear("mixer.gate", count, hidden, part="router"),
        *modules.experts("mixer.experts", count, latent or hidden, width, gated=False),
        *modules.plain_mlp("mixer.shared_experts", hidden, shared, bias=bias, part="shared_expert"),
    )
    if latent is not None:
        weights += (
            *modules.linear("mixer.fc1_latent_proj", latent, hidden, bias=bias, part="mlp"),
            *modules.linear("mixer.fc2_latent_proj", hidden, latent, bias=bias, part="mlp"),
        )
    return Block(Mixer("none"), weights, count, min(config.size("num_experts_per_tok", count), count))


def nemotron_h(config: Config, architecture: str) -> Inventory:
    """Nemotron-H: each layer is one thing, Mamba 2, attention, a feed-forward part or experts."""

    def make(kind: str) -> Block:
        norm = decoder.norms(config, NEMOTRON)
        if kind == "moe":
            return _nemotron_experts(config)
        if kind == "mlp":
            return Block(Mixer("none"), (*decoder.dense_mlp(config, NEMOTRON), *norm))
        if kind == "full_attention":
            size = decoder.head_sizes(config)
            return Block(
                decoder.mixer_of("full", config, size), (*decoder.attention(config, NEMOTRON, size), *norm)
            )
        mixer, weights = multi_head(
            config, "mixer", config.size("mamba_num_heads"), config.size("mamba_head_dim"),
            groups=config.first("mamba_n_groups", "n_groups"), size=config.size("ssm_state_size"),
            kernel=config.first("mamba_d_conv", "conv_kernel"), bias=config.flag("use_bias"),
            out_bias=config.flag("use_bias"),
            conv_bias=config.flag("mamba_conv_bias", config.flag("use_conv_bias", True)),
        )  # fmt: skip
        return Block(mixer, (*weights, *norm))

    return _decoder(config, architecture, NEMOTRON, decoder.distinct(_nemotron_kinds(config), make), 0)


LFM2 = Family(
    qk_norm="head", out_name="out_proj", norms=("operator_norm", "ffn_norm"), final_norm="embedding_norm"
)
LFM2_MOE = LFM2._replace(moe=Moe(layers="first_dense", first="num_dense_layers"))


def _lfm2_width(config: Config) -> int:
    """The feed-forward width that the config's factors give."""
    width = config.first("block_ff_dim", "intermediate_size")
    if not config.flag("block_auto_adjust_ff_dim", True):
        return width
    width = 2 * width // 3
    factor, multiple = config.raw("block_ffn_dim_multiplier", 1.0), max(config.size("block_multiple_of"), 1)
    if not isinstance(factor, (int, float)) or not 0 < factor < 1 << 10:
        return width
    return -(-int(factor * width) // multiple) * multiple


def lfm2(config: Config, architecture: str, family: Family) -> Inventory:
    """LFM2: short convolutions, and attention in the layers listed."""
    attending = config.items("full_attn_idxs")
    count = config.layers()
    if config.items("layer_types"):
        kinds = decoder.kinds(config, "none")
    else:
        kinds = ["full" if attending is None or index in attending else "conv" for index in range(count)]
    keys = [
        (kind, bool(family.moe and decoder.is_sparse(config, family.moe, index)))
        for index, kind in enumerate(kinds)
    ]
    blocks = decoder.distinct(keys, lambda key: _lfm2_block(config, family, *key))
    rope_dim = decoder.head_sizes(config).dim
    body = decoder.assemble(config, family, blocks, rope_dim=rope_dim)
    if "tie_embedding" in config.given:
        config.given["tie_word_embeddings"] = config.flag("tie_embedding", True)
    return modules.with_head(config, body, architecture, family)


def _lfm2_block(config: Config, family: Family, kind: str, sparse: bool) -> Block:
    hidden, kernel, bias = config.size("hidden_size"), config.size("conv_L_cache"), config.flag("conv_bias")
    if kind == "full":
        size = decoder.head_sizes(config)
        mixer, weights = decoder.mixer_of("full", config, size), decoder.attention(config, family, size)
    else:
        mixer = Mixer("mamba", state=((hidden, max(kernel - 1, 0)),))
        weights = (
            *_convolution("conv.conv", hidden, kernel, bias),
            *modules.linear("conv.in_proj", 3 * hidden, hidden, "column", bias=bias, part="mixer"),
            *modules.linear("conv.out_proj", hidden, hidden, "row", bias=bias, part="mixer"),
        )
    if sparse and family.moe:
        return decoder.finish_block(config, family, mixer, weights, True)
    width = config.size("intermediate_size") if family.moe else _lfm2_width(config)
    return Block(
        mixer, (*weights, *modules.gated_mlp("feed_forward", hidden, width), *decoder.norms(config, family))
    )


RECIPES: dict[str, Recipe] = {
    "mamba": mamba, "falcon_mamba": mamba, "mamba2": mamba2, "jamba": jamba, "bamba": bamba,
    "falcon_h1": falcon_h1, "granitemoehybrid": granite_hybrid, "nemotron_h": nemotron_h,
    "lfm2": partial(lfm2, family=LFM2), "lfm2_moe": partial(lfm2, family=LFM2_MOE),
}  # fmt: skip
