"""Decoders from before Llama's layout became the common one: GPT-2, OPT, Falcon."""

from memserve.model.config import Config
from memserve.model.recipes import heads, modules
from memserve.model.recipes.family import Family
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.modules import Inventory, Weights
from memserve.model.spec import Block, Mixer


def _attention(name: str, hidden: int, *, bias: bool, kv: int | None = None,
               out: str = "out_proj") -> Weights:  # fmt: skip
    kv = hidden if kv is None else kv
    return (
        *modules.linear(f"{name}.q_proj", hidden, hidden, "column", bias=bias),
        *modules.linear(f"{name}.k_proj", kv, hidden, "kv", bias=bias),
        *modules.linear(f"{name}.v_proj", kv, hidden, "kv", bias=bias),
        *modules.linear(f"{name}.{out}", hidden, hidden, "row", bias=bias),
    )


def _mixer(config: Config, kv: int | None = None) -> Mixer:
    heads = config.size("num_attention_heads")
    if not heads:
        config.bad("num_attention_heads", "must not be zero")
    dim = config.size("hidden_size") // heads
    return Mixer("full", heads, heads if kv is None else kv, dim, dim)


def opt(config: Config, architecture: str) -> Inventory:
    """OPT: learned positions with an offset of two, embeddings that may be narrower than the layers."""
    hidden, vocabulary, width = config.size("hidden_size"), config.size("vocab_size"), config.size("ffn_dim")
    narrow = config.maybe("word_embed_proj_dim") or hidden
    bias = config.flag("enable_bias", True)
    kind = "layer" if config.flag("layer_norm_elementwise_affine", True) else "bare"
    weights = (
        *_attention("self_attn", hidden, bias=bias),
        *modules.plain_mlp("", hidden, width, bias=bias, names=("fc1", "fc2")),
        *modules.norm("self_attn_layer_norm", hidden, kind),
        *modules.norm("final_layer_norm", hidden, kind),
    )
    projections: Weights = ()
    if narrow != hidden:
        projections = (
            *modules.linear("project_in", hidden, narrow, part="embedding"),
            *modules.linear("project_out", narrow, hidden, part="head"),
        )
    last = config.flag("do_layer_norm_before", True) and not config.flag("_remove_final_layer_norm")
    stem = (
        *modules.embedding("embed_tokens", vocabulary, narrow),
        *modules.positions("embed_positions", config.size("max_position_embeddings") + 2, hidden),
        *projections,
    )
    top = modules.norm("final_layer_norm", hidden, kind) if last else ()
    body = Inventory(
        (Block(_mixer(config), weights),) * config.layers(), stem, top,
        hidden=hidden, intermediate=width, vocabulary=vocabulary, head_width=narrow,
    )  # fmt: skip
    return heads.with_head(config, body, architecture)


def gpt2(config: Config, architecture: str) -> Inventory:
    """GPT-2, and BigCode's with one key head."""
    hidden, vocabulary = config.size("hidden_size"), config.size("vocab_size")
    width = config.maybe("n_inner") or 4 * hidden
    mixer = _mixer(config, 1 if config.flag("multi_query") else None)
    weights = (
        *_attention("attn", hidden, bias=True, kv=mixer.kv_heads * mixer.head_dim, out="c_proj"),
        *modules.plain_mlp("mlp", hidden, width, names=("c_fc", "c_proj")),
        *modules.norm("ln_1", hidden, "layer"),
        *modules.norm("ln_2", hidden, "layer"),
    )
    if config.flag("add_cross_attention"):
        weights = (
            *weights,
            *_attention("crossattention", hidden, bias=True, out="c_proj"),
            *modules.norm("ln_cross_attn", hidden, "layer"),
        )
    stem = (
        *modules.embedding("wte", vocabulary, hidden),
        *modules.positions("wpe", config.size("n_positions"), hidden),
    )
    body = Inventory(
        (Block(mixer, weights),) * config.layers(), stem, modules.norm("ln_f", hidden, "layer"),
        hidden=hidden, intermediate=width, vocabulary=vocabulary,
    )  # fmt: skip
    return heads.with_head(config, body, architecture)


def falcon(config: Config, architecture: str) -> Inventory:
    """Falcon: one or few KV heads, attention and feed-forward side by side."""
    hidden, vocabulary = config.size("hidden_size"), config.size("vocab_size")
    width = config.maybe("ffn_hidden_size") or 4 * hidden
    new, bias = config.flag("new_decoder_architecture"), config.flag("bias")
    kv = config.size("num_attention_heads")
    if new:
        kv = config.maybe("num_kv_heads") or kv
    elif config.flag("multi_query", True):
        kv = 1
    mixer = _mixer(config, kv)
    weights = (
        *_attention("self_attention", hidden, bias=bias, kv=kv * mixer.head_dim, out="dense"),
        *modules.plain_mlp("mlp", hidden, width, bias=bias, names=("dense_h_to_4h", "dense_4h_to_h")),
        *_falcon_norms(config, hidden, new),
    )
    body = Inventory(
        (Block(mixer, weights),) * config.layers(), modules.embedding("word_embeddings", vocabulary, hidden),
        modules.norm("ln_f", hidden, "layer"), hidden=hidden, intermediate=width, vocabulary=vocabulary,
        rope_dim=0 if config.flag("alibi") else mixer.head_dim,
    )  # fmt: skip
    return heads.with_head(config, body, architecture)


def _falcon_norms(config: Config, hidden: int, new: bool) -> Weights:
    if not config.flag("parallel_attn", True):
        names = ["input_layernorm", "post_attention_layernorm"]
    elif (config.maybe("num_ln_in_parallel_attn") or (2 if new else 1)) == 2:
        names = ["ln_attn", "ln_mlp"]
    else:
        names = ["input_layernorm"]
    return tuple(w for name in names for w in modules.norm(name, hidden, "layer"))


def bloom(config: Config, architecture: str) -> Inventory:
    """BLOOM: no positions, a norm behind the token table."""
    hidden, vocabulary = config.size("hidden_size"), config.size("vocab_size")
    weights = (
        *_attention("self_attention", hidden, bias=True, out="dense"),
        *modules.plain_mlp("mlp", hidden, 4 * hidden, names=("dense_h_to_4h", "dense_4h_to_h")),
        *modules.norm("input_layernorm", hidden, "layer"),
        *modules.norm("post_attention_layernorm", hidden, "layer"),
    )
    stem = (
        *modules.embedding("word_embeddings", vocabulary, hidden),
        *modules.norm("word_embeddings_layernorm", hidden, "layer"),
    )
    body = Inventory(
        (Block(_mixer(config), weights),) * config.layers(), stem, modules.norm("ln_f", hidden, "layer"),
        hidden=hidden, intermediate=4 * hidden, vocabulary=vocabulary,
    )  # fmt: skip
    return heads.with_head(config, body, architecture)


def mpt(config: Config, architecture: str) -> Inventory:
    """MPT: no biases."""
    hidden, vocabulary = config.size("hidden_size"), config.size("vocab_size")
    width = 4 * hidden
    weights = (
        *_attention("attn", hidden, bias=False), *modules.plain_mlp("ffn", hidden, width, bias=False),
        *modules.norm("norm_1", hidden), *modules.norm("norm_2", hidden),
    )  # fmt: skip
    body = Inventory(
        (Block(_mixer(config), weights),) * config.layers(), modules.embedding("wte", vocabulary, hidden),
        modules.norm("norm_f", hidden), hidden=hidden, intermediate=width, vocabulary=vocabulary,
    )  # fmt: skip
    return heads.with_head(config, body, architecture)


def gptj(config: Config, architecture: str) -> Inventory:
    """GPT-J and CodeGen: attention and feed-forward side by side, a head with a bias."""
    hidden, vocabulary = config.size("hidden_size"), config.size("vocab_size")
    width = config.maybe("n_inner") or 4 * hidden
    weights = (
        *_attention("attn", hidden, bias=False),
        *modules.plain_mlp("mlp", hidden, width, names=("fc_in", "fc_out")),
        *modules.norm("ln_1", hidden, "layer"),
    )
    mixer = _mixer(config)
    body = Inventory(
        (Block(mixer, weights),) * config.layers(), modules.embedding("wte", vocabulary, hidden),
        modules.norm("ln_f", hidden, "layer"), hidden=hidden, intermediate=width, vocabulary=vocabulary,
        rope_dim=config.maybe("rotary_dim") or mixer.head_dim,
    )  # fmt: skip
    return heads.with_head(config, body, architecture, Family(head_bias=True))


def gpt_neo(config: Config, architecture: str) -> Inventory:
    """GPT-Neo: only the output of attention has a bias."""
    hidden, vocabulary = config.size("hidden_size"), config.size("vocab_size")
    width = config.maybe("intermediate_size") or 4 * hidden
    weights = (
        *_attention("attn", hidden, bias=False),
        *modules.vector("attn.out_proj.bias", hidden, part="attention"),
        *modules.plain_mlp("mlp", hidden, width, names=("c_fc", "c_proj")),
        *modules.norm("ln_1", hidden, "layer"),
        *modules.norm("ln_2", hidden, "layer"),
    )
    stem = (
        *modules.embedding("wte", vocabulary, hidden),
        *modules.positions("wpe", config.size("max_position_embeddings"), hidden),
    )
    body = Inventory(
        (Block(_mixer(config), weights),) * config.layers(), stem, modules.norm("ln_f", hidden, "layer"),
        hidden=hidden, intermediate=width, vocabulary=vocabulary,
    )  # fmt: skip
    return heads.with_head(config, body, architecture)


RECIPES: dict[str, Recipe] = {
    "opt": opt, "gpt2": gpt2, "falcon": falcon, "bloom": bloom, "mpt": mpt,
    "gptj": gptj, "codegen": gptj, "gpt_neo": gpt_neo, "gpt_bigcode": gpt2,
}  # fmt: skip
