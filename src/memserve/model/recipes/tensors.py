"""Any model that transformers can build: weights by name and shape, sorted into layers, roles and splits."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

from memserve.model.recipes.modules import Inventory
from memserve.model.spec import Block, Mixer, MixerKind, Part, Shard, Weight

_TABLE = (
    r"(embed_tokens\w*|word_embeddings?|wte|tok_embeddings|tokens_embed|embed_in|token_embd|input_embedding)$"
)
_SHARDS: tuple[tuple[str, Shard], ...] = (
    (_TABLE, "vocab"),
    (r"(^|\.)(shared|lm_head|embed_out|predictions\.decoder|embeddings|head)$", "vocab"),
    (r"(k_proj|v_proj|key|value|k_lin|v_lin)$", "kv"),
    (r"(q_proj|query|qkv|qkv_proj|query_key_value|c_attn|Wqkv|in_proj|q_b_proj|kv_b_proj|q_lin)$", "column"),
    (r"(gate_proj|up_proj|gate_up_proj|fc1|fc_in|c_fc|w1|w3|wi|wi_0|wi_1|lin1|Wi|dense_h_to_4h)$", "column"),
    (
        r"(intermediate\.dense|SelfAttention\.[qkv]|EncDecAttention\.[qkv]|input_linear|output_gate)$",
        "column",
    ),
    (r"(W_pack|dt_proj|dt_proj_weight|receptance|linear_[xy]|linear_attn\.g_proj)$", "column"),
    (r"(o_proj|out_proj|c_proj|down_proj|fc2|fc_out|w2|wo|Wo|lin2|out_lin|dense_4h_to_h)$", "row"),
    (
        r"(output_linear|output\.dense|SelfAttention\.o|EncDecAttention\.o|linear_out|x_proj|x_proj_weight)$",
        "row",
    ),
    (r"(self_attention\.dense|attention\.dense|self_attn\.dense)$", "row"),
)
_PARTS: tuple[tuple[str, Part], ...] = (
    (r"(norm|ln_\w+|layernorm|LayerNorm|layer_norm\w*|ln\d?)$", "norm"),
    (r"(position|embed_positions|wpe|pos_emb)", "position"),
    (r"(lm_head|embed_out|classifier|score|qa_outputs|cls\.|predictions|pooler|^head$)", "head"),
    (_TABLE, "embedding"),
    (r"((^|\.)shared$|(^|\.)embeddings?(\.|$))", "embedding"),
    (r"(shared_expert)", "shared_expert"),
    (r"(experts?\b)", "expert"),
    (r"(router|\bgate$|gate\.(wg|weight)|e_score)", "router"),
    (r"(attn|attention|Attention|q_proj|k_proj|v_proj|o_proj)", "attention"),
    (r"(mlp|ffn|fc\d|feed_forward|intermediate|DenseReluDense|gate_proj|up_proj|down_proj)", "mlp"),
    (r"(^|\.)(wi|wo|output\.dense)$", "mlp"),
    (r"(mamba|mixer|conv|A_log|dt_bias|time_mix|channel_mix|temporal_block|mlstm)", "mixer"),
)


@cache
def _part(name: str) -> Part:
    return next((part for pattern, part in _PARTS if re.search(pattern, name)), "other")


@cache
def _shard(name: str) -> Shard:
    return next((shard for pattern, shard in _SHARDS if re.search(pattern, name)), "replicated")


def as_weight(name: str, shape: tuple[int, ...]) -> Weight:
    """One weight of transformers' naming: its role, its split, and whether quantization may replace it."""
    plain = re.sub(r"\.\d+(?=\.|$)", "", name)
    bias = plain.endswith((".bias", "_bias"))
    base = plain.removesuffix(".weight").removesuffix(".bias").removesuffix("_bias").removesuffix(".linear")
    part, shard = _part(base), _shard(base)
    short = name.removesuffix(".weight")
    if part == "expert":
        fused = len(shape) == 3 or (bias and len(shape) == 2)
        count, rest = (shape[0], shape[1:]) if fused else (1, shape)
        return Weight(short, part, rest, "expert", count, linear=not bias and len(rest) == 2)
    if bias and shard == "row":
        shard = "replicated"
    matrix = len(shape) == 2 and not bias and part not in ("norm", "position", "embedding")
    return Weight(short, part, shape, shard, linear=matrix and name.endswith(".weight"))


_LAYER = re.compile(r"^(.*?(?:layers|layer|blocks|block|h|groups))\.(\d+)\.(.+)$")
_TOWER = re.compile(
    r"vision|visual|image|audio|speech|video|projector|connector|qformer|resampler|perceiver|mm_|merger|"
    r"embed_vision|patch|codec|vocoder|multi_modal|multimodal|feature_extractor"
)
_KEYS = re.compile(r"(^|\.)(k_proj|key|k|k_lin)$")
_QUERIES = re.compile(r"(^|\.)(q_proj|query|q|q_lin)$")
_HEAD_NORM = re.compile(r"(^|\.)[qk]_(norm|layernorm|ln)$")
_STATE_MIXERS = re.compile(r"(A_log|dt_bias|conv1d|time_decay|\.x_proj|lru|short_conv|\.conv\.)")


def inventory(shapes: Mapping[str, tuple[int, ...]], aliases: Mapping[str, tuple[int, ...]],
              config: Any) -> Inventory:  # fmt: skip
    """A body from every weight of a model; `aliases` are tied weights, held once and read twice."""
    text = config.get_text_config(decoder=True)
    stacks: dict[str, dict[int, dict[str, Weight]]] = {}
    stem: list[Weight] = []
    top: list[Weight] = []
    towers: list[Weight] = []
    for name, shape in shapes.items():
        found = _LAYER.match(name)
        if _TOWER.search(name.split(".layers.")[0] if "language" not in name else ""):
            part: Part = "projector" if "project" in name else "tower"
            towers.append(replace(as_weight(name, shape), part=part))
            continue
        if found:
            layer = stacks.setdefault(found[1], {}).setdefault(int(found[2]), {})
            layer[found[3]] = _in_layer(found[1], found[3], shape)
            continue
        weight = as_weight(name, shape)
        if weight.part in ("embedding", "position"):
            stem.append(weight)
        else:
            top.append(weight)
    top += [replace(as_weight(name, shape), tied=True) for name, shape in aliases.items() if "head" in name]
    encoder, decoder = _halves(stacks, config)
    return Inventory(
        _blocks(stacks.get(decoder, {}), text), tuple(stem), tuple(top),
        tuple(towers) + _rest(stacks, {encoder, decoder}),
        _blocks(stacks.get(encoder, {}), text) if encoder else (), hidden=_number(text, "hidden_size"),
        intermediate=_number(text, "intermediate_size"), vocabulary=_number(text, "vocab_size"),
        rope_dim=_rope_dim(text),
    )  # fmt: skip


@lru_cache(4096)
def _in_layer(stack: str, name: str, shape: tuple[int, ...]) -> Weight:
    """A layer's weight under its name in the layer; equal layers hold the same."""
    return replace(as_weight(f"{stack}.{name}", shape), name=name.removesuffix(".weight"))


def _number(config: Any, *names: str) -> int:
    for name in names:
        found = getattr(config, name, None)
        if isinstance(found, int) and not isinstance(found, bool):
            return found
    return 0


def _head_dim(config: Any) -> int:
    heads = _number(config, "num_attention_heads")
    return _number(config, "head_dim") or (_number(config, "hidden_size") // heads if heads else 0)


def _rope_dim(config: Any) -> int:
    if not hasattr(config, "rope_parameters"):
        return 0
    return _number(config, "qk_rope_head_dim") or _head_dim(config)


def _halves(stacks: Mapping[str, Mapping[int, Any]], config: Any) -> tuple[str, str]:
    """Which stacks of layers are the encoder and the decoder: by name, else the deepest."""
    if not stacks:
        return "", ""
    deepest = max(stacks, key=lambda name: len(stacks[name]))
    if not config.is_encoder_decoder:
        return "", deepest
    decoders = [name for name in stacks if "decoder" in name]
    encoders = [name for name in stacks if "encoder" in name]
    return (encoders[0] if encoders else ""), (decoders[0] if decoders else deepest)


def _rest(stacks: Mapping[str, Mapping[int, Mapping[str, Weight]]], used: set[str]) -> tuple[Weight, ...]:
    """Smaller stacks beside the main ones count as towers."""
    return tuple(
        replace(weight, name=f"{stack}.{index}.{weight.name}", part="tower")
        for stack, layers in stacks.items()
        if stack not in used
        for index, layer in layers.items()
        for weight in layer.values()
    )


def _blocks(stack: Mapping[int, Mapping[str, Weight]], config: Any) -> tuple[Block, ...]:
    made: dict[Block, Block] = {}
    found = []
    for index in sorted(stack):
        weights = tuple(stack[index].values())
        block = Block(_mixer(weights, config, index), weights, *_experts(weights, config))
        found.append(made.setdefault(block, block))
    return tuple(found)


def _experts(weights: tuple[Weight, ...], config: Any) -> tuple[int, int]:
    counts = [weight.count for weight in weights if weight.part == "expert"]
    if not counts:
        return 0, 0
    total = max(counts)
    per_token = _number(
        config, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k", "top_k_experts",
        "moe_k",
    )  # fmt: skip
    return total, min(per_token or total, total)


def _mixer(weights: tuple[Weight, ...], config: Any, index: int) -> Mixer:
    rows = {weight.name: weight.shape for weight in weights}
    if any("kv_a_proj" in name for name in rows):
        return _latent(config, rows)
    keys = _first(rows, _KEYS)
    if keys is None and any(_STATE_MIXERS.search(name) for name in rows):
        return mamba(config)
    if "self_attn.compressor.kv_norm" in rows or config.model_type == "deepseek_v4":
        return _compressed(config, rows, index)
    size = _sizes(config, rows, keys)
    kind, window = _window(config, index)
    if any("cross_attn." in name for name in rows) and not any("self_attn." in name for name in rows):
        kind, window = "cross", None
    return Mixer(kind, *size, size[2], window=window, shares_cache_of=_shared(config, index))


def _first(rows: Mapping[str, tuple[int, ...]], pattern: re.Pattern[str]) -> tuple[int, ...] | None:
    return next((shape for name, shape in rows.items() if len(shape) == 2 and pattern.search(name)), None)


def _sizes(config: Any, rows: Mapping[str, tuple[int, ...]],
           keys: tuple[int, ...] | None) -> tuple[int, int, int]:  # fmt: skip
    """Heads, KV heads and head width of one layer: from its own matrices where they tell."""
    heads, dim = _number(config, "num_attention_heads"), _head_dim(config)
    normed = _normed(rows)
    if keys and normed and keys[0] % normed == 0:
        dim = normed
    kv = _number(config, "num_key_value_heads", "num_kv_heads") or heads
    if keys and dim and keys[0] % dim == 0:
        kv = keys[0] // dim
        queries = _first(rows, _QUERIES)
        if queries and queries[0] % (dim * kv) == 0 and queries[0] // dim <= 2 * heads:
            heads = queries[0] // dim
    return heads, kv, dim


def _normed(rows: Mapping[str, tuple[int, ...]]) -> int:
    """The head width, where queries and keys are normed head by head."""
    norms = {name.rsplit(".", 1)[-1][0]: shape[0] for name, shape in rows.items() if _HEAD_NORM.search(name)}
    queries = _first(rows, _QUERIES)
    per_head = norms.get("q") == norms.get("k") and queries is not None and norms.get("q") != queries[0]
    return norms.get("k", 0) if per_head else 0


def _shared(config: Any, index: int) -> int | None:
    """The layer whose cache this one reads: the last of its kind before the sharing layers (Gemma 3n, 4)."""
    first = _number(config, "num_hidden_layers") - _number(config, "num_kv_shared_layers")
    kinds = getattr(config, "layer_types", None)
    if index < first or not isinstance(kinds, list):
        return None
    return next((place for place in range(first - 1, -1, -1) if kinds[place] == kinds[index]), None)


def _compressed(config: Any, rows: Mapping[str, tuple[int, ...]], index: int) -> Mixer:
    """DeepSeek-V4: one shared latent of the head's width, kept for a window and then for every n-th token."""
    rope = _number(config, "qk_rope_head_dim")
    dim = _number(config, "head_dim")
    stride = next((shape[0] for name, shape in rows.items() if name.endswith("compressor.position_bias")), 1)
    indexed = any("indexer" in name for name in rows)
    return Mixer(
        "mla", _number(config, "num_attention_heads"), 1, dim, dim,
        window=_number(config, "sliding_window") or None,
        kv_lora_rank=dim - rope, rope_dim=rope, stride=stride,
        index_dim=_number(config, "index_head_dim") if indexed else 0,
    )  # fmt: skip


def _latent(config: Any, rows: Mapping[str, tuple[int, ...]]) -> Mixer:
    nope, rope = _number(config, "qk_nope_head_dim"), _number(config, "qk_rope_head_dim")
    indexed = any("indexer" in name for name in rows)
    return Mixer(
        "mla", _number(config, "num_attention_heads"), 1, nope + rope, _number(config, "v_head_dim"),
        kv_lora_rank=_number(config, "kv_lora_rank"), rope_dim=rope,
        index_dim=_number(config, "index_head_dim") if indexed else 0,
    )  # fmt: skip


def _window(config: Any, index: int) -> tuple[MixerKind, int | None]:
    kinds = getattr(config, "layer_types", None)
    window = _number(config, "sliding_window") or None
    if isinstance(kinds, list) and index < len(kinds):
        if kinds[index] == "chunked_attention":
            return "chunked", _number(config, "attention_chunk_size") or None
        return ("sliding", window) if kinds[index] == "sliding_attention" and window else ("full", None)
    return ("sliding", window) if window else ("full", None)


def mamba(config: Any) -> Mixer:
    """A Mamba or short-convolution layer: its states, where the config names their sizes."""
    size = _number(config, "mamba_d_state", "state_size", "ssm_state_size")
    kernel = max(_number(config, "mamba_d_conv", "conv_kernel", "conv_kernel_size", "conv_L_cache") - 1, 0)
    hidden = _number(config, "hidden_size")
    expand = _number(config, "mamba_expand", "expand")
    inner = (
        _number(config, "mamba_d_ssm") or expand * hidden or _number(config, "intermediate_size") or hidden
    )
    heads = _number(config, "mamba_n_heads", "mamba_num_heads", "num_heads", "n_mamba_heads")
    groups = _number(config, "mamba_n_groups", "n_groups", "mamba_ngroups")
    state: tuple[tuple[int, ...], ...] = ((hidden, kernel),)
    if size and heads and groups:
        dim = _number(config, "mamba_d_head", "mamba_head_dim", "head_dim", "mamba_headdim") or inner // heads
        inner = heads * dim
        state = ((inner + 2 * groups * size, kernel), (heads, dim, size))
    elif size:
        state = ((inner, kernel), (inner, size))
    dtype = getattr(config, "mamba_ssm_dtype", None) or getattr(config, "mamba_ssm_cache_dtype", None)
    return Mixer(
        "mamba", heads, heads, 0, 0, state=state, state_dtype=dtype if isinstance(dtype, str) else ""
    )
