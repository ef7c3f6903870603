"""Decoders unlike Llama's: GPT-2, OPT, Falcon; with layers of their own: Laguna, Llama 4, MiMo."""

from memserve.model.config import Config
from memserve.model.recipes import decoder, modules
from memserve.model.recipes.decoder import Heads
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.modules import Family, Inventory, Moe, Weights
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
    return modules.with_head(config, body, architecture)


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
    return modules.with_head(config, body, architecture)


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
    return modules.with_head(config, body, architecture)


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
    return modules.with_head(config, body, architecture)


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
    return modules.with_head(config, body, architecture)


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
    return modules.with_head(config, body, architecture, Family(head_bias=True))


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
    return modules.with_head(config, body, architecture)


def _block(config: Config, family: Family, kind: str, sparse: bool, size: Heads) -> Block:
    """A layer with given heads."""
    mixer = decoder.mixer_of(kind, config, size, decoder.value_width(config, family, size))
    return decoder.finish_block(config, family, mixer, decoder.attention(config, family, size), sparse)


LAGUNA = Family(
    qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head",
    moe=Moe(shared_width="shared_expert_intermediate_size", correction=True, layers="first_dense", first=1),
)  # fmt: skip


def laguna(config: Config, architecture: str) -> Inventory:
    """Laguna: a number of heads for each layer, and an output gate for each head or each channel."""
    gated = config.raw("gating", True)
    family = LAGUNA._replace(gate="head" if gated is True or gated == "per-head" else "full")
    size, moe = decoder.head_sizes(config), LAGUNA.moe
    listed = config.items("num_attention_heads_per_layer") or [size.heads] * config.layers()
    if len(listed) < config.layers() or not all(isinstance(one, int) and 0 < one < 1 << 16 for one in listed):
        config.bad("num_attention_heads_per_layer", "must name the heads of each layer")
    keys = [
        (kind, bool(moe and decoder.is_sparse(config, moe, index)), size._replace(heads=listed[index]))
        for index, kind in enumerate(decoder.kinds(config, "none"))
    ]
    blocks = decoder.distinct(keys, lambda key: _block(config, family, *key))
    return modules.with_head(config, decoder.assemble(config, family, blocks), architecture, family)


LLAMA4_MOE = Moe("num_local_experts", width="intermediate_size", shared_width="intermediate_size")
LLAMA4 = Family(
    qkv_bias="attention_bias", out_bias="attention_bias", width="intermediate_size_mlp", windows="llama4",
    moe=LLAMA4_MOE,
)  # fmt: skip


def llama4(config: Config, architecture: str) -> Inventory:
    """Llama 4: experts in the layers listed, or in every n-th."""
    count, step = config.layers(), max(config.size("interleave_moe_layer_step", 1), 1)
    sparse = config.items("moe_layers")
    if sparse is None:
        sparse = list(range(step - 1, count, step))
    keys = [(kind, index in sparse) for index, kind in enumerate(decoder.kinds(config, LLAMA4.windows))]
    blocks = decoder.distinct(keys, lambda key: decoder.standard_block(config, LLAMA4, *key))
    body = decoder.assemble(config, LLAMA4, blocks)._replace(intermediate=config.size("intermediate_size"))
    return modules.with_head(config, body, architecture, LLAMA4)


MIMO = Family(
    qkv_bias="attention_bias", value_dim="v_head_dim", windows="mimo",
    moe=Moe("n_routed_experts", layers="first_dense", first=1),
)  # fmt: skip


def mimo(config: Config, architecture: str) -> Inventory:
    """MiMo-V2-Flash: sliding layers have twice the KV heads, and sinks."""
    size, moe = decoder.head_sizes(config), MIMO.moe
    keys = [
        (kind, bool(moe and decoder.is_sparse(config, moe, index)))
        for index, kind in enumerate(decoder.kinds(config, MIMO.windows))
    ]

    def make(key: tuple[str, bool]) -> Block:
        sliding = key[0] == "sliding"
        own = size._replace(kv=2 * size.kv) if sliding else size
        return _block(config, MIMO._replace(sinks=sliding), *key, own)

    blocks = decoder.distinct(keys, make)
    return modules.with_head(config, decoder.assemble(config, MIMO, blocks), architecture, MIMO)


RECIPES: dict[str, Recipe] = {
    "opt": opt, "gpt2": gpt2, "falcon": falcon, "bloom": bloom, "mpt": mpt, "gptj": gptj, "codegen": gptj,
    "gpt_neo": gpt_neo, "gpt_bigcode": gpt2, "laguna": laguna, "llama4_text": llama4, "mimo_v2_flash": mimo,
}  # fmt: skip
