"""Which recipe each `model_type` follows, and how its layers differ from Llama's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve.model.recipes import classic, decoder, mla, recurrent
from memserve.model.recipes.style import FOUR_NORMS, TWO_NORMS, Moe, Style

if TYPE_CHECKING:
    from collections.abc import Callable

    from memserve.model.config import Config
    from memserve.model.recipes.anatomy import Anatomy

QWEN_MOE = Moe(layers="steps")
DEEPSEEK_MOE = Moe("n_routed_experts", shared_count="n_shared_experts", layers="first_dense")

DECODERS: dict[str, Style] = {
    "llama": Style(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "mistral": Style(windows="window"),
    "ministral": Style(windows="window"),
    "mixtral": Style(windows="window", moe=Moe("num_local_experts", width="intermediate_size")),
    "qwen2": Style(qkv_bias=True, windows="qwen"),
    "qwen2_moe": Style(
        qkv_bias="qkv_bias",
        windows="qwen",
        moe=Moe(shared_width="shared_expert_intermediate_size", shared_gate=True, layers="steps"),
    ),
    "qwen3": Style(qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="qwen"),
    "qwen3_moe": Style(
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="qwen_moe", moe=QWEN_MOE
    ),
    "gemma": Style(qkv_bias="attention_bias", out_bias="attention_bias"),
    "gemma2": Style(
        qkv_bias="attention_bias", out_bias="attention_bias", norms=FOUR_NORMS, windows="every2"
    ),
    "gemma3_text": Style(
        qkv_bias="attention_bias", out_bias="attention_bias", norms=FOUR_NORMS, qk_norm="head",
        windows="gemma3",
    ),
    "phi3": Style(mlp="fused", windows="window"),
    "phi": Style(
        qkv_bias=True, out_bias=True, out_name="dense", norm="layer", norms=("input_layernorm",), mlp="plain",
        mlp_bias=True, mlp_names=("fc1", "fc2"), head_bias=True, final_norm="final_layernorm",
        qk_norm="head", qk_norm_if="qk_layernorm",
    ),
    "glm": Style(qkv_bias="attention_bias", mlp="fused"),
    "glm4": Style(
        qkv_bias="attention_bias", mlp="fused",
        norms=(*TWO_NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"),
    ),
    "gpt_oss": Style(
        qkv_bias="attention_bias", out_bias="attention_bias", sinks=True, windows="every2",
        moe=Moe("num_local_experts", width="intermediate_size", router_bias=True, expert_bias=True),
    ),
    "starcoder2": Style(
        qkv_bias="use_bias", out_bias="use_bias", norm="layer", mlp="plain", mlp_bias="use_bias",
        mlp_names=("c_fc", "c_proj"), windows="window",
    ),
    "granite": Style(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "minimax_m2": Style(qk_norm="full", moe=Moe("num_local_experts", width="intermediate_size")),
}  # fmt: skip

SAME_LAYERS = {
    "qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}  # fmt: skip
DECODERS.update({kind: DECODERS[base] for kind, base in SAME_LAYERS.items()})

LATENT: dict[str, Style] = {
    "deepseek_v2": Style(mlp_bias="mlp_bias", moe=DEEPSEEK_MOE),
    "deepseek_v3": Style(moe=DEEPSEEK_MOE),
    "deepseek_v32": Style(moe=DEEPSEEK_MOE),
    "glm_moe_dsa": Style(moe=DEEPSEEK_MOE),
}

HYBRIDS: dict[str, Style] = {
    "qwen3_next": Style(
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="interval",
        moe=Moe(shared_width="shared_expert_intermediate_size", shared_gate=True, layers="steps"),
    ),
    "qwen3_5_text": Style(
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="interval"
    ),
    "qwen3_5_moe_text": Style(
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="interval",
        moe=Moe(shared_width="shared_expert_intermediate_size", shared_gate=True),
        width="moe_intermediate_size",
    ),
}  # fmt: skip
KIMI = Style(ties=False, moe=Moe("num_local_experts", shared_count="n_shared_experts"))

OTHERS: dict[str, Callable[[Config], Anatomy]] = {
    "opt": classic.opt,
    "gpt2": classic.gpt2,
    "falcon": classic.falcon,
    "kimi_linear": lambda config: recurrent.kimi(config, KIMI),
}


KNOWN = frozenset({*DECODERS, *LATENT, *HYBRIDS, *OTHERS})


def style_of(kind: str) -> Style:
    """The style of a family, for its head; Llama's where the family has a recipe of its own."""
    return (
        DECODERS.get(kind)
        or LATENT.get(kind)
        or HYBRIDS.get(kind)
        or {"kimi_linear": KIMI}.get(kind, Style())
    )


def recipe(kind: str) -> Callable[[Config], Anatomy] | None:
    """The function that lays out a model of this type; None where there is none."""
    if kind in DECODERS:
        return lambda config: decoder.decoder(config, DECODERS[kind])
    if kind in LATENT:
        return lambda config: mla.latent(config, LATENT[kind])
    if kind in HYBRIDS:
        return lambda config: recurrent.hybrid(config, HYBRIDS[kind])
    return OTHERS.get(kind)
