"""Gemma 3, 3n and 4: text, and the towers of the ones that see and hear."""

from dataclasses import replace

from memserve.model.config import Config
from memserve.model.recipes import decoder, families, modules
from memserve.model.recipes.decoder import Heads
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.modules import FOUR_NORMS, Family, Inventory, Weights
from memserve.model.spec import Block, Shard

FAMILY = Family(
    qkv_bias="attention_bias", out_bias="attention_bias", norms=FOUR_NORMS, qk_norm="head", windows="every6"
)
GLOBAL_WIDTH = 512
"""Head width of the layers that attend to all, where the config leaves it out."""


def _heads(config: Config, kind: str) -> Heads:
    """Layers that attend to all have heads of their own width, and with shared keys their own number."""
    size = decoder.head_sizes(config)
    if kind != "full":
        return size
    own = config.maybe("num_global_key_value_heads")
    shared = own is not None and config.flag("attention_k_eq_v", True)
    return Heads(size.heads, own if shared and own else size.kv, config.size("global_head_dim", GLOBAL_WIDTH))


def _experts(config: Config) -> Weights:
    """Experts beside the feed-forward part, with a router that scales."""
    hidden, count, width = (config.size(f) for f in ("hidden_size", "num_experts", "moe_intermediate_size"))
    names = ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2")
    return (
        *modules.linear("router.proj", count, hidden, part="router"),
        *modules.vector("router.scale", hidden, part="router"),
        *modules.vector("router.per_expert_scale", count, part="router"),
        *modules.experts("experts", count, hidden, width),
        *(w for name in names for w in modules.norm(name, hidden)),
    )


def without_keys(attend: Weights, *, shared: bool, same: bool = False) -> Weights:
    """Attention that reads another layer's keys and values, or whose values are the keys."""
    left_out = {"k_proj", "v_proj", "k_norm"} if shared else {"v_proj"} if same else set()
    return tuple(w for w in attend if w.name.split(".")[1] not in left_out)


def own_input(hidden: int, each: int) -> Weights:
    """What mixes a layer's own input into it."""
    return (
        *modules.linear("per_layer_input_gate", each, hidden, part="other"),
        *modules.linear("per_layer_projection", hidden, each, part="other"),
        *modules.norm("post_per_layer_input_norm", hidden),
    )


def own_inputs(config: Config, each: int) -> Weights:
    """The table with an input for each token and layer."""
    wide = each * config.layers()
    return (
        *modules.embedding("embed_tokens_per_layer", config.size("vocab_size_per_layer_input"), wide),
        *modules.linear("per_layer_model_projection", wide, config.size("hidden_size"), part="other"),
        *modules.norm("per_layer_projection_norm", each),
    )


def sources(config: Config, kinds: list[str]) -> list[tuple[str, int | None]]:
    """Each layer's kind, and which layer's keys and values it reads: the last of its kind that makes some."""
    own = len(kinds) - config.size("num_kv_shared_layers", 0)
    last = {kind: index for index, kind in enumerate(kinds[:own])} if own > 0 else {}
    return [(kind, None if index < own else last.get(kind, 0)) for index, kind in enumerate(kinds)]


def _block(config: Config, kind: str, source: int | None) -> Block:
    """A layer of Gemma 4; `source`: the layer whose keys and values it reads instead of making its own."""
    hidden, each = config.size("hidden_size"), config.maybe("hidden_size_per_layer_input")
    size = _heads(config, kind)
    same = kind == "full" and config.flag("attention_k_eq_v")
    attend = without_keys(decoder.attention(config, FAMILY, size), shared=source is not None, same=same)
    width = config.size("intermediate_size")
    if source is not None and config.flag("use_double_wide_mlp"):
        width *= 2
    weights = (*attend, *decoder.dense_mlp(config, FAMILY, width), *decoder.norms(config, FAMILY))
    if each:
        weights += own_input(hidden, each)
    mixer = replace(decoder.mixer_of(kind, config, size), shares_cache_of=source)
    if not config.flag("enable_moe_block"):
        return Block(mixer, weights)
    count = config.size("num_experts")
    return Block(mixer, (*weights, *_experts(config)), count, min(config.size("top_k_experts", count), count))


def text(config: Config, architecture: str) -> Inventory:
    """Gemma 4's words: later layers may read the keys and values of earlier ones."""
    kinds = decoder.kinds(config, FAMILY.windows)
    kinds[-1] = "full"
    blocks = decoder.distinct(sources(config, kinds), lambda key: _block(config, *key))
    body = decoder.assemble(config, FAMILY, blocks)
    each = config.maybe("hidden_size_per_layer_input")
    if each:
        body = body.adding(stem=own_inputs(config, each))
    return modules.with_head(config, body, architecture, FAMILY)


def _words(config: Config, architecture: str) -> Inventory:
    """The text part of a model with towers."""
    inner = config.sub("text_config")
    inner.given["tie_word_embeddings"] = config.flag("tie_word_embeddings", True)
    recipe = families.RECIPES["gemma3_text"] if inner.kind == "gemma3_text" else text
    return recipe(inner, architecture or "ForConditionalGeneration")


def siglip(config: Config) -> Weights:
    """SigLIP's vision encoder, with the attention pooling that it keeps."""
    hidden, width = config.size("hidden_size"), config.size("intermediate_size")
    patch, side = config.size("patch_size"), config.size("image_size")
    count, head = config.layers(), "head.attention"
    found = (
        *modules.vector("embeddings.patch_embedding", hidden, config.size("num_channels", 3), patch, patch),
        *modules.vector("embeddings.patch_embedding.bias", hidden),
        *modules.positions("embeddings.position_embedding", (side // patch) ** 2, hidden),
        *modules.norm("post_layernorm", hidden, "layer"),
        *(w for name in ("q", "k", "v") for w in _layer(f"self_attn.{name}_proj", hidden, hidden, count)),
        *_layer("self_attn.out_proj", hidden, hidden, count),
        *_layer("mlp.fc1", width, hidden, count),
        *_layer("mlp.fc2", hidden, width, count),
        *modules.norm("layer_norm1", hidden, "layer", count),
        *modules.norm("layer_norm2", hidden, "layer", count),
    )
    if not config.flag("vision_use_head", True):
        return found
    return (
        *found,
        *modules.vector("head.probe", 1, 1, hidden),
        *modules.linear(f"{head}.in_proj", 3 * hidden, hidden, bias=True),
        *modules.linear(f"{head}.out_proj", hidden, hidden, bias=True),
        *modules.norm("head.layernorm", hidden, "layer"),
        *modules.plain_mlp("head.mlp", hidden, width, names=("fc1", "fc2")),
    )


def _layer(name: str, out: int, into: int, count: int, *, bias: bool = True) -> Weights:
    """A matrix of each layer, split as its name says."""
    return modules.linear(name, out, into, SHARDS.get(name, "replicated"), bias=bias, count=count)


SHARDS: dict[str, Shard] = {
    "self_attn.q_proj": "column", "self_attn.k_proj": "kv", "self_attn.v_proj": "kv",
    "self_attn.o_proj": "row", "self_attn.out_proj": "row", "mlp.fc1": "column", "mlp.fc2": "row",
    "mlp.gate_proj": "column", "mlp.up_proj": "column", "mlp.down_proj": "row",
}  # fmt: skip


def gemma3(config: Config, architecture: str) -> Inventory:
    """Gemma 3 with its SigLIP tower."""
    seen = config.sub("vision_config")
    into, out = seen.size("hidden_size"), config.sub("text_config").size("hidden_size")
    projector = (
        *modules.vector("mm_input_projection_weight", into, out),
        *modules.norm("mm_soft_emb_norm", into),
    )
    return _words(config, architecture).adding(
        towers=(
            *modules.under("vision_tower", siglip(seen)),
            *modules.under("multi_modal_projector", projector, "projector"),
        )
    )


def _vision(config: Config) -> Weights:
    """Gemma 4's vision encoder: layers of its text kind, patches as rows of pixels."""
    hidden, width, count = config.size("hidden_size"), config.size("intermediate_size"), config.layers()
    heads_, kv, dim = (config.size(f) for f in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    shapes = {
        "self_attn.q_proj": (heads_ * dim, hidden), "self_attn.k_proj": (kv * dim, hidden),
        "self_attn.v_proj": (kv * dim, hidden), "self_attn.o_proj": (hidden, heads_ * dim),
        "mlp.gate_proj": (width, hidden), "mlp.up_proj": (width, hidden), "mlp.down_proj": (hidden, width),
    }  # fmt: skip
    return (
        *modules.linear("patch_embedder.input_proj", hidden, 3 * config.size("patch_size") ** 2),
        *modules.vector("patch_embedder.positions", 2, config.size("position_embedding_size"), hidden),
        *(w for name, shape in shapes.items() for w in _layer(name, *shape, count, bias=False)),
        *modules.norm("self_attn.q_norm", dim, count=count),
        *modules.norm("self_attn.k_norm", dim, count=count),
        *(w for name in FOUR_NORMS for w in modules.norm(name, hidden, count=count)),
    )


AUDIO_NORMS = (
    "feed_forward1.pre_layer_norm", "feed_forward1.post_layer_norm", "feed_forward2.pre_layer_norm",
    "feed_forward2.post_layer_norm", "lconv1d.pre_layer_norm", "lconv1d.conv_norm", "norm_pre_attn",
    "norm_post_attn", "norm_out",
)  # fmt: skip


def _audio(config: Config) -> Weights:
    """Gemma 4's audio encoder: a conformer behind two strided convolutions."""
    hidden, count = config.size("hidden_size"), config.layers()
    listed = config.items("subsampling_conv_channels") or [128, 32]
    first, second = (one if isinstance(one, int) else 0 for one in listed[:2])
    square = ("q_proj", "k_proj", "v_proj", "post", "relative_k_proj")
    shapes = {
        **{f"self_attn.{name}": (hidden, hidden) for name in square},
        **{f"feed_forward{n}.ffw_layer_1": (4 * hidden, hidden) for n in (1, 2)},
        **{f"feed_forward{n}.ffw_layer_2": (hidden, 4 * hidden) for n in (1, 2)},
        "lconv1d.linear_start": (2 * hidden, hidden), "lconv1d.linear_end": (hidden, hidden),
    }  # fmt: skip
    return (
        *modules.vector("subsample.layer0.conv", first, 1, 3, 3),
        *modules.norm("subsample.layer0.norm", first),
        *modules.vector("subsample.layer1.conv", second, first, 3, 3),
        *modules.norm("subsample.layer1.norm", second),
        *modules.linear("subsample.input_proj_linear", hidden, first // 4 * second),
        *(w for name, shape in shapes.items() for w in _layer(name, *shape, count, bias=False)),
        *modules.vector("self_attn.per_dim_scale", hidden // config.size("num_attention_heads"), count=count),
        *modules.vector("lconv1d.depthwise_conv1d", hidden, 1, config.size("conv_kernel_size"), count=count),
        *(w for name in AUDIO_NORMS for w in modules.norm(name, hidden, count=count)),
        *modules.linear("output_proj", config.size("output_proj_dims"), hidden, bias=True),
    )


def gemma4(config: Config, architecture: str) -> Inventory:
    """Gemma 4 with the towers that its config has."""
    body = _words(config, architecture)
    for field, make, width in (
        ("vision_config", _vision, "hidden_size"), ("audio_config", _audio, "output_proj_dims"),
    ):  # fmt: skip
        if config.has(field):
            inner, name = config.sub(field), field.removesuffix("_config")
            projector = modules.linear("embedding_projection", body.hidden, inner.size(width))
            body = body.adding(
                towers=(
                    *modules.under(f"{name}_tower", make(inner)),
                    *modules.under(f"embed_{name}", projector, "projector"),
                )
            )
    return body


def gemma4_unified(config: Config, architecture: str) -> Inventory:
    """Gemma 4 without towers: pixels and samples go through one matrix each."""
    body = _words(config, architecture)
    if config.has("vision_config"):
        inner = config.sub("vision_config")
        wide = 3 * (inner.size("patch_size") * inner.size("pooling_kernel_size")) ** 2
        width = inner.size("mm_embed_dim")
        embedder = (
            *modules.norm("patch_ln1", wide, "layer"),
            *modules.linear("patch_dense", width, wide, bias=True),
            *modules.norm("patch_ln2", width, "layer"),
            *modules.vector("pos_embedding", inner.size("mm_posemb_size"), 2, width),
            *modules.norm("pos_norm", width, "layer"),
            *modules.linear("embedding_projection", body.hidden, inner.size("output_proj_dims")),
        )
        body = body.adding(towers=modules.under("embed_vision", embedder, "projector"))
    if config.has("audio_config"):
        into = config.sub("audio_config").size("audio_embed_dim")
        heard = modules.linear("embedding_projection", body.hidden, into)
        body = body.adding(towers=modules.under("embed_audio", heard, "projector"))
    return body


WITH_STREAMS = FAMILY._replace(windows="every5")


def _widths(config: Config) -> list[int]:
    """The feed-forward width of each layer: one for all, or a list."""
    listed, count = config.raw("intermediate_size"), config.layers()
    if not isinstance(listed, list):
        return [config.size("intermediate_size")] * count
    if len(listed) != count or not all(isinstance(one, int) and 0 < one < 1 << 30 for one in listed):
        config.bad("intermediate_size", f"must have a width for each of the {count} layers")
    return listed


def _streamed(config: Config, kind: str, source: int | None, width: int) -> Block:
    hidden, streams = config.size("hidden_size"), config.size("altup_num_inputs")
    rank, each = config.size("laurel_rank"), config.size("hidden_size_per_layer_input")
    size = decoder.head_sizes(config)
    weights = (
        *without_keys(decoder.attention(config, WITH_STREAMS, size), shared=source is not None),
        *decoder.dense_mlp(config, WITH_STREAMS, width),
        *decoder.norms(config, WITH_STREAMS),
        *modules.vector("altup.correct_output_scale", hidden),
        *modules.vector("altup.correction_coefs", streams, streams),
        *modules.vector("altup.prediction_coefs", streams**2, streams),
        *modules.vector("altup.modality_router", streams, hidden),
        *modules.norm("altup.router_norm", hidden),
        *modules.linear("laurel.linear_left", rank, hidden, part="other"),
        *modules.linear("laurel.linear_right", hidden, rank, part="other"),
        *modules.norm("laurel.post_laurel_norm", hidden),
        *own_input(hidden, each),
    )
    return Block(replace(decoder.mixer_of(kind, config, size), shares_cache_of=source), weights)


def text_3n(config: Config, architecture: str) -> Inventory:
    """All layers, and the tables beside the tokens'."""
    hidden, streams = config.size("hidden_size"), config.size("altup_num_inputs")
    found = sources(config, decoder.kinds(config, WITH_STREAMS.windows))
    keys = [(*key, width) for key, width in zip(found, _widths(config), strict=True)]
    blocks = decoder.distinct(keys, lambda key: _streamed(config, *key))
    body = decoder.assemble(config, WITH_STREAMS, blocks)._replace(intermediate=max(_widths(config)))
    others = max(streams - 1, 0)
    body = body.adding(
        stem=(
            *own_inputs(config, config.size("hidden_size_per_layer_input")),
            *modules.linear("altup_projections", hidden, hidden, part="other", count=others),
        ),
        top=modules.linear("altup_unembed_projections", hidden, hidden, part="other", count=others),
    )
    return modules.with_head(config, body, architecture, WITH_STREAMS)


RECIPES: dict[str, Recipe] = {
    "gemma3": gemma3, "gemma3n_text": text_3n, "gemma4": gemma4, "gemma4_text": text,
    "gemma4_unified": gemma4_unified, "gemma4_unified_text": text,
}  # fmt: skip
