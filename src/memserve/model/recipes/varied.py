"""Decoders whose layers have heads or widths of their own: Laguna, Llama 4, MiMo."""

from memserve.model.config import Config
from memserve.model.recipes import decoder, heads
from memserve.model.recipes.decoder import Heads
from memserve.model.recipes.family import Family, Moe
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.modules import Inventory
from memserve.model.spec import Block


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
    return heads.with_head(config, decoder.assemble(config, family, blocks), architecture, family)


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
    return heads.with_head(config, body, architecture, LLAMA4)


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
    return heads.with_head(config, decoder.assemble(config, MIMO, blocks), architecture, MIMO)


RECIPES: dict[str, Recipe] = {"laguna": laguna, "llama4_text": llama4, "mimo_v2_flash": mimo}
