"""Any model that transformers can build: its weights by name and shape, sorted into layers and roles.

For families without a recipe. The count is exact; roles, splits and mixers are read off names and sizes.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memserve.model import roles
from memserve.model.anatomy import Anatomy
from memserve.model.spec import Block, Mixer, Weight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memserve.model.spec import MixerKind

_LAYER = re.compile(r"^(.*?(?:layers|layer|blocks|block|h|groups))\.(\d+)\.(.+)$")
_TOWER = re.compile(
    r"vision|visual|image|audio|speech|video|projector|connector|qformer|resampler|perceiver|mm_|merger|"
    r"embed_vision|patch|codec|vocoder|backbone|multi_modal|multimodal|^conv|feature_extractor"
)
_STATE_MIXERS = re.compile(r"(A_log|dt_bias|conv1d|time_decay|\.x_proj|lru|short_conv|\.conv\.)")


def anatomy(
    shapes: Mapping[str, tuple[int, ...]], aliases: Mapping[str, tuple[int, ...]], config: Any
) -> Anatomy:
    """A body from every weight of a model; `aliases` are tied weights, held once and read twice."""
    text = config.get_text_config(decoder=True)
    weights = {name: roles.weight(name, shape) for name, shape in shapes.items()}
    stacks: dict[str, dict[int, dict[str, Weight]]] = {}
    stem: list[Weight] = []
    top: list[Weight] = []
    towers: list[Weight] = []
    for name, weight in weights.items():
        found = _LAYER.match(name)
        if _TOWER.search(name.split(".layers.")[0] if "language" not in name else ""):
            towers.append(replace(weight, part="projector" if "project" in name else "tower"))
        elif found:
            stacks.setdefault(found[1], {}).setdefault(int(found[2]), {})[found[3]] = weight
        elif weight.part in ("embedding", "position"):
            stem.append(weight)
        else:
            top.append(weight)
    top += [
        replace(roles.weight(name, shape), tied=True) for name, shape in aliases.items() if "head" in name
    ]
    encoder, decoder = _halves(stacks, config)
    return Anatomy(
        _blocks(stacks.get(decoder, {}), text),
        tuple(stem),
        tuple(top),
        tuple(towers) + _rest(stacks, {encoder, decoder}),
        _blocks(stacks.get(encoder, {}), text) if encoder else (),
        hidden=_number(text, "hidden_size"),
        intermediate=_number(text, "intermediate_size"),
        vocabulary=_number(text, "vocab_size"),
        rope_dim=_head_dim(text) if hasattr(text, "rope_parameters") else 0,
        encoder_only=not config.is_encoder_decoder and _bidirectional(text, stacks),
    )


def _number(config: Any, *names: str) -> int:
    for name in names:
        found = getattr(config, name, None)
        if isinstance(found, int) and not isinstance(found, bool):
            return found
    return 0


def _head_dim(config: Any) -> int:
    heads = _number(config, "num_attention_heads")
    return _number(config, "head_dim") or (_number(config, "hidden_size") // heads if heads else 0)


def _bidirectional(config: Any, stacks: Mapping[str, Any]) -> bool:
    return not getattr(config, "is_decoder", False) and any(
        name.startswith(("encoder", "bert")) for name in stacks
    )


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
    left = (layers for name, layers in stacks.items() if name not in used)
    return tuple(
        replace(w, part="tower") for layers in left for layer in layers.values() for w in layer.values()
    )


def _blocks(stack: Mapping[int, Mapping[str, Weight]], config: Any) -> tuple[Block, ...]:
    made: dict[Block, Block] = {}
    found = []
    for index in sorted(stack):
        weights = tuple(replace(weight, name=name) for name, weight in stack[index].items())
        block = Block(_mixer(weights, config, index), weights, *_experts(weights, config))
        found.append(made.setdefault(block, block))
    return tuple(found)


def _experts(weights: tuple[Weight, ...], config: Any) -> tuple[int, int]:
    counts = [weight.count for weight in weights if weight.part == "expert"]
    if not counts:
        return 0, 0
    total = max(counts)
    per_token = _number(
        config,
        "num_experts_per_tok",
        "num_experts_per_token",
        "moe_topk",
        "moe_top_k",
        "top_k_experts",
        "moe_k",
    )
    return total, min(per_token or total, total)


def _mixer(weights: tuple[Weight, ...], config: Any, index: int) -> Mixer:
    rows = {weight.name: weight.shape for weight in weights}
    if any("kv_a_proj" in name for name in rows):
        return _latent(config, rows)
    heads, dim = _number(config, "num_attention_heads"), _head_dim(config)
    keys = next((shape for name, shape in rows.items() if re.search(r"(k_proj|key)(\.weight)?$", name)), None)
    if keys is None and any(_STATE_MIXERS.search(name) for name in rows):
        return Mixer("mamba", heads, heads, dim, dim, state=_state(config))
    kv = _number(config, "num_key_value_heads", "num_kv_heads") or heads
    if keys and heads and dim and keys[0] % dim == 0:
        kv = keys[0] // dim
    kind, window = _window(config, index)
    return Mixer(kind, heads, kv, dim, dim, window=window)


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


def _state(config: Any) -> tuple[tuple[int, ...], ...]:
    """Convolution and recurrent state of a Mamba layer, where the config names their sizes."""
    size = _number(config, "mamba_d_state", "state_size", "ssm_state_size")
    kernel = _number(config, "mamba_d_conv", "conv_kernel", "conv_kernel_size", "conv_L_cache")
    hidden = _number(config, "hidden_size")
    inner = _number(config, "mamba_d_ssm", "intermediate_size") or hidden
    expand = _number(config, "mamba_expand", "expand")
    if expand:
        inner = _number(config, "mamba_d_ssm") or expand * hidden
    heads = _number(config, "mamba_n_heads", "mamba_num_heads", "num_heads")
    if not size:
        return ((hidden, max(kernel - 1, 0)),)
    groups = _number(config, "mamba_n_groups", "n_groups")
    if heads and groups:
        dim = _number(config, "mamba_d_head", "mamba_head_dim", "head_dim") or inner // heads
        return ((inner + 2 * groups * size, max(kernel - 1, 0)), (heads, dim, size))
    return ((inner, max(kernel - 1, 0)), (inner, size))
