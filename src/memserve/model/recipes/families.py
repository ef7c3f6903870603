"""How the layers of each family of decoders differ from Llama's: a row of data each."""

from functools import partial

from memserve.model.recipes import decoder
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.modules import FOUR_NORMS, TWO_NORMS, Family, Moe

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
        windows="pattern6",
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

BIASED = Family(qkv_bias="attention_bias", out_bias="attention_bias")
AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
"""Norms behind each half of a layer, none in front."""
ROUTED = "n_routed_experts"

DECODERS.update({
    "ministral3": DECODERS["mistral"],
    "glm4v_text": DECODERS["glm4"]._replace(qkv_bias=True),
    "glm4_moe": Family(
        qkv_bias="attention_bias", qk_norm="head", qk_norm_if="use_qk_norm",
        moe=Moe(ROUTED, shared_count="n_shared_experts", layers="first_dense"),
    ),
    "dots1": Family(
        qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head", windows="last",
        moe=Moe(ROUTED, shared_count="n_shared_experts", layers="first_dense"),
    ),
    "solar_open": Family(
        qkv_bias="attention_bias", moe=Moe(ROUTED, shared_count="n_shared_experts"),
        width="moe_intermediate_size",
    ),
    "hy_v3": BIASED._replace(
        qk_norm="head", mlp_bias="mlp_bias",
        moe=Moe(shared_count="num_shared_experts", layers="first_dense", first=1),
    ),
    "exaone_moe": Family(
        qk_norm="head", windows="pattern4",
        moe=Moe(shared_count="num_shared_experts", layers="first_dense"),
    ),
    "exaone4": Family(qk_norm="head", norms=AFTER, windows="pattern4"),
    "olmo": BIASED._replace(norm="bare"),
    "olmo2": BIASED._replace(qk_norm="full", norms=AFTER),
    "olmo3": BIASED._replace(qk_norm="full", norms=AFTER, windows="every4"),
    "olmoe": BIASED._replace(qk_norm="full", moe=Moe(width="intermediate_size")),
    "flex_olmo": BIASED._replace(qk_norm="full", norms=AFTER, moe=Moe(width="intermediate_size")),
    "phimoe": BIASED._replace(
        norm="layer", head_bias="lm_head_bias", windows="window",
        moe=Moe("num_local_experts", width="intermediate_size"),
    ),
    "seed_oss": Family(qkv_bias="attention_bias", out_bias="attention_out_bias", mlp_bias="mlp_bias"),
    "smollm3": BIASED._replace(mlp_bias="mlp_bias", windows="qwen_moe"),
    "stablelm": Family(
        qkv_bias="use_qkv_bias", qk_norm="heads", qk_norm_if="qk_layernorm", norm="layer",
        norms=("input_layernorm",), switched_norms=("post_attention_layernorm",),
        norm_switch="-use_parallel_residual",
    ),
    "cohere": BIASED._replace(
        norm="scale", norms=("input_layernorm",), qk_norm="heads", qk_norm_if="use_qk_norm"
    ),
    "cohere2": BIASED._replace(norm="scale", norms=("input_layernorm",), windows="pattern4"),
    "afmoe": BIASED._replace(
        qk_norm="head", gate="full", norms=(*TWO_NORMS, "pre_mlp_layernorm", "post_mlp_layernorm"),
        windows="afmoe",
        moe=Moe(shared_count="num_shared_experts", correction=True, layers="first_dense",
                first="num_dense_layers"),
    ),
    "apertus": BIASED._replace(
        qk_norm="head", mlp="plain", extras=(("mlp.act_fn.alpha_p", "1"), ("mlp.act_fn.alpha_n", "1")),
    ),
    "arcee": BIASED._replace(mlp="plain", mlp_bias="mlp_bias"),
    "aria_text": BIASED._replace(
        mlp_bias="mlp_bias", moe=Moe("moe_num_experts", "moe_topk", "intermediate_size",
                                     shared_count="moe_num_shared_experts"),
    ),
    "bitnet": BIASED._replace(
        extras=(("self_attn.attn_sub_norm", "hidden_size"), ("mlp.ffn_sub_norm", "intermediate_size")),
    ),
    "cwm": Family(mlp_bias="mlp_bias", windows="first4"),
    "ernie4_5": Family(qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias"),
    "ernie4_5_moe": Family(
        qkv_bias="use_bias", out_bias="use_bias", mlp_bias="use_bias",
        moe=Moe("moe_num_experts", "moe_k", shared_count="moe_num_shared_experts", correction=True,
                layers="interval"),
    ),
    "granite_swa": BIASED._replace(mlp_bias="mlp_bias", sinks=True, windows="first4"),
    "granitemoe": BIASED._replace(moe=Moe("num_local_experts", width="intermediate_size")),
    "granitemoeshared": BIASED._replace(
        moe=Moe("num_local_experts", width="intermediate_size", shared_width="shared_intermediate_size"),
    ),
    "helium": Family(qkv_bias="attention_bias", mlp_bias="mlp_bias"),
    "hunyuan_v1_dense": BIASED._replace(qk_norm="head"),
    "hunyuan_v1_moe": BIASED._replace(
        qk_norm="head",
        moe=Moe(per_token="moe_topk", width="intermediate_size", shared_width="intermediate_size"),
    ),
    "jais2": BIASED._replace(norm="layer", mlp="plain", mlp_bias="mlp_bias"),
    "hyperclovax": BIASED._replace(
        mlp_bias="mlp_bias", switched_norms=("post_norm1", "post_norm2"), norm_switch="use_post_norm",
    ),
    "nanochat": BIASED._replace(norm="bare", mlp="plain", mlp_names=("fc1", "fc2")),
    "nemotron": BIASED._replace(norm="layer", mlp="plain", mlp_bias="mlp_bias"),
    "persimmon": Family(
        qkv_bias=True, out_bias=True, out_name="dense", norm="layer", qk_norm="head",
        qk_norm_if="qk_layernorm", mlp="plain", mlp_bias=True, mlp_names=("dense_h_to_4h", "dense_4h_to_h"),
        final_norm="final_layernorm",
    ),
    "vaultgemma": BIASED._replace(norms=("input_layernorm", "pre_feedforward_layernorm"), windows="every2"),
    "diffllama": BIASED._replace(
        extras=tuple((f"self_attn.lambda_{one}", "head_dim") for one in ("q1", "k1", "q2", "k2")),
    ),
    "minimax_m3_vl_text": Family(
        qk_norm="head", width="dense_intermediate_size",
        moe=Moe("num_local_experts", width="intermediate_size", shared_width="shared_intermediate_size"),
    ),
    "mellum": BIASED._replace(qk_norm="head", moe=Moe("num_local_experts")),
    "kolibri1": Family(
        qk_norm="head", windows="pattern4",
        norms=(*TWO_NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"),
        moe=Moe("num_local_experts", shared_width="shared_expert_intermediate_size"),
        width="moe_intermediate_size",
    ),
    "granitemoe_swa": BIASED._replace(
        sinks=True, windows="first4",
        moe=Moe("num_local_experts", width="intermediate_size", shared_width="shared_intermediate_size"),
    ),
    "biogpt": Family(
        qkv_bias=True, out_bias=True, out_name="out_proj", norm="layer",
        norms=("self_attn_layer_norm", "final_layer_norm"), mlp="plain", mlp_bias=True,
        mlp_names=("fc1", "fc2"), positions="max_position_embeddings", position_offset=2,
        final_norm="layer_norm",
    ),
    "gpt_neox": Family(
        qkv_bias="attention_bias", out_bias="attention_bias", norm="layer", attention="attention",
        out_name="dense", mlp="plain", mlp_bias=True, mlp_names=("dense_h_to_4h", "dense_4h_to_h"),
        final_norm="final_layer_norm",
    ),
})  # fmt: skip
for _kind, _base in {
    "exaone": "llama",
    "iquestcoder": "llama",
    "internlm3": "llama",
    "sarvam_moe": "glm4_moe",
    "glm4v_moe_text": "glm4_moe",
    "qwen2_5_omni_text": "qwen2",
}.items():
    DECODERS[_kind] = DECODERS[_base]

RECIPES: dict[str, Recipe] = {kind: partial(decoder.decoder, family=row) for kind, row in DECODERS.items()}
