"""How the layers of each family of decoders differ from Llama's: a row of data each."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from memserve.model.recipes import decoder
from memserve.model.recipes.family import FOUR_NORMS, TWO_NORMS, Family, Moe

if TYPE_CHECKING:
    from memserve.model.recipes.index import Recipe

QWEN_MOE = Moe(layers="steps")

DECODERS: dict[str, Family] = {
    "llama": Family(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "mistral": Family(windows="window"),
    "ministral": Family(windows="window"),
    "mixtral": Family(windows="window", moe=Moe("num_local_experts", width="intermediate_size")),
    "qwen2": Family(qkv_bias=True, windows="qwen"),
    "qwen2_moe": Family(
        qkv_bias="qkv_bias",
        windows="qwen",
        moe=Moe(shared_width="shared_expert_intermediate_size", shared_gate=True, layers="steps"),
    ),
    "qwen3": Family(qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="qwen"),
    "qwen3_moe": Family(
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="qwen_moe", moe=QWEN_MOE
    ),
    "gemma": Family(qkv_bias="attention_bias", out_bias="attention_bias"),
    "gemma2": Family(
        qkv_bias="attention_bias", out_bias="attention_bias", norms=FOUR_NORMS, windows="every2"
    ),
    "gemma3_text": Family(
        qkv_bias="attention_bias", out_bias="attention_bias", norms=FOUR_NORMS, qk_norm="head",
        windows="gemma3",
    ),
    "phi3": Family(mlp="fused", windows="window"),
    "phi": Family(
        qkv_bias=True, out_bias=True, out_name="dense", norm="layer", norms=("input_layernorm",), mlp="plain",
        mlp_bias=True, mlp_names=("fc1", "fc2"), head_bias=True, final_norm="final_layernorm",
        qk_norm="head", qk_norm_if="qk_layernorm",
    ),
    "glm": Family(qkv_bias="attention_bias", mlp="fused"),
    "glm4": Family(
        qkv_bias="attention_bias", mlp="fused",
        norms=(*TWO_NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"),
    ),
    "gpt_oss": Family(
        qkv_bias="attention_bias", out_bias="attention_bias", sinks=True, windows="every2",
        moe=Moe("num_local_experts", width="intermediate_size", router_bias=True, expert_bias=True),
    ),
    "starcoder2": Family(
        qkv_bias="use_bias", out_bias="use_bias", norm="layer", mlp="plain", mlp_bias="use_bias",
        mlp_names=("c_fc", "c_proj"), windows="window",
    ),
    "granite": Family(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "minimax_m2": Family(qk_norm="full", moe=Moe("num_local_experts", width="intermediate_size")),
}  # fmt: skip

SAME_LAYERS = {
    "qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe_text": "qwen3_moe",
}  # fmt: skip
DECODERS.update({kind: DECODERS[base] for kind, base in SAME_LAYERS.items()})

RECIPES: dict[str, Recipe] = {kind: partial(decoder.decoder, family=row) for kind, row in DECODERS.items()}
