"""Small configs of encoders and of models that see or hear, drawn the same on every machine."""

from __future__ import annotations

import random
from typing import Any

MANY = 20
"""Configs drawn for each family."""
COMMON = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
CHOICE = (*COMMON, "ForMultipleChoice")
SEQ2SEQ = ("ForConditionalGeneration", "Model", "ForSequenceClassification", "ForQuestionAnswering")
T5 = (*SEQ2SEQ, "EncoderModel", "ForTokenClassification")
ENCODERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "bert": ("Bert", (*CHOICE, "ForPreTraining", "ForNextSentencePrediction", "LMHeadModel")),
    "roberta": ("Roberta", (*CHOICE, "ForCausalLM")),
    "xlm-roberta": ("XLMRoberta", CHOICE),
    "camembert": ("Camembert", CHOICE),
    "mpnet": ("MPNet", CHOICE),
    "distilbert": ("DistilBert", CHOICE),
    "electra": ("Electra", (*CHOICE, "ForPreTraining", "ForCausalLM")),
    "albert": ("Albert", (*CHOICE, "ForPreTraining")),
    "deberta": ("Deberta", COMMON),
    "deberta-v2": ("DebertaV2", CHOICE),
    "dpr": ("DPR", ("ContextEncoder", "QuestionEncoder", "Reader")),
    "modernbert": ("ModernBert", CHOICE),
    "nomic_bert": ("NomicBert", COMMON[:4]),
    "gte": ("Gte", COMMON[:4]),
    "eurobert": ("EuroBert", COMMON[:4]),
    "jina_embeddings_v3": ("JinaEmbeddingsV3", COMMON),
    "ernie": ("Ernie", (*CHOICE, "ForPreTraining", "ForCausalLM")),
    "xlm": ("XLM", ("Model", "WithLMHeadModel", "ForSequenceClassification", "ForQuestionAnsweringSimple")),
    "t5": ("T5", T5),
    "mt5": ("MT5", T5),
    "umt5": ("UMT5", T5),
    "bart": ("Bart", (*SEQ2SEQ, "ForCausalLM")),
    "mbart": ("MBart", (*SEQ2SEQ, "ForCausalLM")),
    "m2m_100": ("M2M100", SEQ2SEQ[:2]),
    "pegasus": ("Pegasus", (*SEQ2SEQ[:2], "ForCausalLM")),
    "marian": ("Marian", ("MTModel", "Model", "ForCausalLM")),
    "whisper": ("Whisper", (*SEQ2SEQ[:2], "ForCausalLM", "ForAudioClassification")),
}
SIZES: dict[str, int] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "dim": 32,
    "n_layers": 3,
    "n_heads": 4,
    "hidden_dim": 48,
    "emb_dim": 32,
    "d_model": 32,
    "d_ff": 48,
    "d_kv": 8,
    "num_layers": 2,
    "num_heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 40,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}
"""What every small encoder says, in whichever of these words its family has."""
OPTIONS: dict[str, tuple[Any, ...]] = {
    "hidden_size": (16, 64),
    "num_hidden_layers": (1, 2, 5),
    "num_attention_heads": (2, 8),
    "intermediate_size": (20, 100),
    "max_position_embeddings": (16, 70),
    "type_vocab_size": (1, 2, 3),
    "tie_word_embeddings": (True, False),
    "embedding_size": (16, 32, 24),
    "num_hidden_groups": (1, 2),
    "inner_group_num": (1, 2),
    "relative_attention": (True,),
    "pos_att_type": (["c2p"], ["p2c", "c2p"], "p2c|c2p"),
    "max_relative_positions": (-1, 12),
    "position_buckets": (-1, 10),
    "norm_rel_ebd": ("layer_norm", "none"),
    "share_att_key": (True, False),
    "conv_kernel_size": (0, 3),
    "position_biased_input": (False, True),
    "legacy": (True, False),
    "projection_dim": (0, 12),
    "norm_bias": (True,),
    "attention_bias": (True,),
    "mlp_bias": (True,),
    "decoder_bias": (False,),
    "classifier_bias": (True,),
    "n_langs": (1, 3),
    "use_lang_emb": (True, False),
    "relative_attention_num_buckets": (8,),
    "use_task_id": (True,),
    "d_model": (16, 64),
    "d_kv": (4, 8),
    "d_ff": (20, 100),
    "num_layers": (1, 4),
    "num_heads": (2, 8),
    "num_decoder_layers": (1, None, 3),
    "feed_forward_proj": ("gated-gelu", "relu"),
    "encoder_layers": (1, 4),
    "decoder_layers": (1, 4),
    "encoder_ffn_dim": (24,),
    "decoder_ffn_dim": (28,),
    "decoder_vocab_size": (70,),
    "share_encoder_decoder_embeddings": (True, False),
    "num_mel_bins": (40,),
    "max_source_positions": (30,),
    "max_target_positions": (20,),
    "use_weighted_layer_sum": (True,),
    "classifier_proj_size": (12,),
    "id2label": ({"0": "a", "1": "b", "2": "c"},),
}
BERT = (
    "hidden_size intermediate_size max_position_embeddings num_attention_heads num_hidden_layers vocab_size"
)
BART = (
    "d_model decoder_attention_heads decoder_ffn_dim decoder_layers encoder_attention_heads "
    "encoder_ffn_dim encoder_layers tie_word_embeddings vocab_size"
)
T5_WORDS = (
    "d_ff d_kv d_model feed_forward_proj num_decoder_layers num_heads num_layers "
    "relative_attention_num_buckets vocab_size"
)
FIELDS: dict[str, str] = {
    "bert": f"{BERT} tie_word_embeddings type_vocab_size",
    "roberta": f"{BERT} tie_word_embeddings type_vocab_size",
    "xlm-roberta": f"{BERT} tie_word_embeddings type_vocab_size",
    "camembert": f"{BERT} tie_word_embeddings type_vocab_size",
    "mpnet": f"{BERT} relative_attention_num_buckets tie_word_embeddings",
    "distilbert": ("dim hidden_dim max_position_embeddings n_heads n_layers tie_word_embeddings vocab_size"),
    "electra": f"{BERT} embedding_size tie_word_embeddings type_vocab_size",
    "albert": (
        f"{BERT} embedding_size inner_group_num num_hidden_groups tie_word_embeddings type_vocab_size"
    ),
    "deberta": (
        f"{BERT} legacy max_relative_positions pos_att_type position_biased_input relative_attention "
        "tie_word_embeddings type_vocab_size"
    ),
    "deberta-v2": (
        f"{BERT} legacy max_relative_positions pos_att_type position_biased_input relative_attention "
        "tie_word_embeddings type_vocab_size"
    ),
    "dpr": f"{BERT} projection_dim type_vocab_size",
    "modernbert": (
        f"{BERT} attention_bias classifier_bias decoder_bias mlp_bias norm_bias tie_word_embeddings"
    ),
    "nomic_bert": f"{BERT} type_vocab_size",
    "gte": f"{BERT} tie_word_embeddings type_vocab_size",
    "eurobert": f"{BERT} attention_bias mlp_bias tie_word_embeddings",
    "jina_embeddings_v3": f"{BERT} tie_word_embeddings type_vocab_size",
    "ernie": f"{BERT} tie_word_embeddings type_vocab_size use_task_id",
    "xlm": (
        "emb_dim max_position_embeddings n_heads n_langs n_layers tie_word_embeddings use_lang_emb vocab_size"
    ),
    "t5": f"{T5_WORDS} ",
    "mt5": f"{T5_WORDS} tie_word_embeddings",
    "umt5": f"{T5_WORDS} ",
    "bart": f"{BART} max_position_embeddings",
    "mbart": f"{BART} max_position_embeddings",
    "m2m_100": f"{BART} max_position_embeddings",
    "pegasus": f"{BART} max_position_embeddings",
    "marian": f"{BART} decoder_vocab_size max_position_embeddings share_encoder_decoder_embeddings",
    "whisper": (
        f"{BART} classifier_proj_size max_source_positions max_target_positions num_mel_bins "
        "use_weighted_layer_sum"
    ),
}
"""The words above that a family's class has."""
MARKS = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
UNSAID = {"deberta-v2": ("position_buckets", "norm_rel_ebd", "share_att_key", "conv_kernel_size")}
"""Options that a class reads and does not declare."""
FIXED_LABELS = ("ForQuestionAnswering", "ForMultipleChoice")

WORDS = {name: SIZES[name] for name in list(SIZES)[:7]} | {"num_key_value_heads": 2}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
    "n_routed_experts": 4,
    "first_k_dense_replace": 1,
}
DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "head_dim": 16,
}
VISION: dict[str, tuple[Any, ...]] = {
    "hidden_size": (32, 16, 64),
    "num_hidden_layers": (3, 1, 4),
    "num_attention_heads": (4,),
    "intermediate_size": (40, 24, 50),
    "image_size": (28, 30, 56),
    "patch_size": (7, 14),
    "num_channels": (3, 1),
}
VISUAL: dict[str, tuple[Any, ...]] = {
    "hidden_size": (32, 16, 64),
    "depth": (3, 1, 4),
    "num_heads": (4,),
    "intermediate_size": (40, 24, 50),
    "patch_size": (7, 14),
    "spatial_merge_size": (2, 1),
    "temporal_patch_size": (2, 1),
    "in_channels": (3, 1),
    "out_hidden_size": (32,),
}
DEEP = {**VISUAL, "num_position_embeddings": (49, 16)}
STACK = {**DEEP, "deepstack_visual_indexes": ([0], [], [0, 1])}
SOUND: dict[str, tuple[Any, ...]] = {
    "d_model": (16, 32),
    "encoder_layers": (2, 1),
    "encoder_attention_heads": (4,),
    "encoder_ffn_dim": (24, 40),
    "num_mel_bins": (8,),
    "max_source_positions": (20, 30),
}
TIE: dict[str, tuple[Any, ...]] = {"tie_word_embeddings": (True, False)}
LLAVA = {**TIE, "vision_feature_layer": (-2, [-1, -2]), "multimodal_projector_bias": (True, False)}
COHERE = {**TIE, "downsample_factor": (2, 4), "alignment_intermediate_size": (40,)}
SIGLIP = {**VISION, "vision_use_head": (True, False)}
INTERN = {
    **VISION,
    "image_size": ([28, 28], [30, 56], 56),
    "patch_size": ([14, 14], [7, 7]),
    "attention_bias": (True, False),
    "use_qk_norm": (True, False),
    "norm_type": ("rms_norm", "layer_norm"),
    "use_mean_pooling": (False, True),
    "use_absolute_position_embeddings": (True, False),
}
MLLAMA = {
    **VISION,
    "attention_heads": (4,),
    "num_global_layers": (2, 1),
    "max_num_tiles": (2,),
    "vision_output_dim": (48,),
    "supported_aspect_ratios": ([[1, 1], [1, 2]], [[1, 1]]),
    "intermediate_layers_indices": ([0, 1],),
}
LLAMA4 = {**VISION, "vision_output_dim": (20,), "projector_input_dim": (24,), "projector_output_dim": (20,)}
Nested = tuple[str, dict[str, tuple[Any, ...]]]
TOWERS: dict[str, tuple[str, Nested, tuple[str, dict[str, Any]], dict[str, tuple[Any, ...]]]] = {
    "llava": ("Llava", ("clip_vision_model", VISION), ("llama", WORDS), LLAVA),
    "llava_next": ("LlavaNext", ("siglip_vision_model", SIGLIP), ("mistral", WORDS), LLAVA),
    "llava_next_video": ("LlavaNextVideo", ("clip_vision_model", VISION), ("llama", WORDS), LLAVA),
    "llava_onevision": ("LlavaOnevision", ("siglip_vision_model", SIGLIP), ("qwen2", WORDS), LLAVA),
    "vipllava": ("VipLlava", ("clip_vision_model", VISION), ("llama", WORDS), LLAVA),
    "video_llava": ("VideoLlava", ("clip_vision_model", VISION), ("llama", WORDS), LLAVA),
    "mistral3": (
        "Mistral3",
        ("pixtral", VISION),
        ("mistral", WORDS),
        {**LLAVA, "spatial_merge_size": (1, 2)},
    ),
    "internvl": ("InternVL", ("", INTERN), ("qwen3", WORDS), {**TIE, "downsample_ratio": (0.5, 0.25, 1.0)}),
    "qwen2_vl": ("Qwen2VL", ("", {**VISUAL, "embed_dim": (16, 32), "mlp_ratio": (2, 4)}), ("", WORDS), TIE),
    "qwen2_5_vl": ("Qwen2_5_VL", ("", VISUAL), ("", WORDS), TIE),
    "qwen3_vl": ("Qwen3VL", ("", STACK), ("", WORDS), TIE),
    "qwen3_vl_moe": ("Qwen3VLMoe", ("", STACK), ("", {**WORDS, **EXPERTS}), TIE),
    "qwen3_5": ("Qwen3_5", ("", DEEP), ("", {**WORDS, **DELTA}), TIE),
    "qwen3_5_moe": ("Qwen3_5Moe", ("", DEEP), ("", {**WORDS, **DELTA, **EXPERTS}), TIE),
    "glm4v": (
        "Glm4v",
        ("", {**VISUAL, "image_size": (28,), "attention_bias": (True, False)}),
        ("", WORDS),
        TIE,
    ),
    "glm4v_moe": ("Glm4vMoe", ("", {**VISUAL, "image_size": (28,)}), ("", {**WORDS, **EXPERTS}), TIE),
    "idefics3": ("Idefics3", ("", VISION), ("llama", WORDS), {**TIE, "scale_factor": (2, 4)}),
    "smolvlm": ("SmolVLM", ("", VISION), ("llama", WORDS), {**TIE, "scale_factor": (2, 4)}),
    "paligemma": (
        "PaliGemma",
        ("siglip_vision_model", {**SIGLIP, "projection_dim": (32, 16)}),
        ("gemma2", WORDS),
        {**TIE, "projection_dim": (32, 16)},
    ),
    "llama4": (
        "Llama4",
        ("", LLAMA4),
        ("", {**WORDS, "intermediate_size_mlp": 64, "num_local_experts": 4}),
        TIE,
    ),
    "aya_vision": ("AyaVision", ("siglip_vision_model", SIGLIP), ("cohere2", WORDS), COHERE),
    "cohere2_vision": ("Cohere2Vision", ("siglip_vision_model", SIGLIP), ("cohere2", WORDS), COHERE),
    "mllama": ("Mllama", ("", MLLAMA), ("", {**WORDS, "cross_attention_layers": [1]}), TIE),
    "qwen2_audio": ("Qwen2Audio", ("qwen2_audio_encoder", SOUND), ("qwen2", WORDS), TIE),
    "qwen2_5_omni_thinker": ("Qwen2_5OmniThinker", ("", VISUAL), ("", WORDS), TIE),
}
WHOLE_ONLY = frozenset({"llama4", "qwen2_audio", "qwen2_5_omni_thinker"})
"""Families without a class for the body alone."""


def _some(options: dict[str, tuple[Any, ...]], chance: random.Random) -> dict[str, Any]:
    return {name: chance.choice(values) for name, values in options.items() if chance.random() < 0.5}


def encoder(kind: str, fields: frozenset[str], turn: int, chance: random.Random) -> dict[str, Any]:
    """One config of an encoder, in the words that its class has."""
    start, ends = ENCODERS[kind]
    end = ends[turn % len(ends)]
    said = {name: size for name, size in SIZES.items() if name in fields or name == "pad_token_id"}
    open_to = (*fields, *UNSAID.get(kind, ()), "id2label")
    options = {name: values for name, values in OPTIONS.items() if name in open_to}
    config = {**said, **_some(options, chance)}
    if end.startswith(FIXED_LABELS):
        config.pop("id2label", None)
    marks = MARKS if kind in ("modernbert", "eurobert") else {}
    return {"model_type": kind, "architectures": [start + end], **config, **marks}


def tower(kind: str, turn: int, chance: random.Random) -> dict[str, Any]:
    """One config of a model with towers."""
    start, (seen, sizes), (words, base), options = TOWERS[kind]
    end = "Model" if turn % 2 and kind not in WHOLE_ONLY else "ForConditionalGeneration"
    nested = {name: chance.choice(values) for name, values in sizes.items()}
    text = {**base, "num_hidden_layers": chance.choice((1, 3)), **_some(TIE, chance)}
    text |= {"model_type": words} if words else {}
    parts = {
        "audio_config" if seen.endswith("encoder") else "vision_config": nested
        | ({"model_type": seen} if seen else {})
    }
    if kind == "qwen2_5_omni_thinker":
        parts["audio_config"] = {
            **{name: chance.choice(values) for name, values in SOUND.items()},
            "output_dim": 32,
        }
    return {
        "model_type": kind,
        "architectures": [start + end],
        "text_config": text,
        **parts,
        **_some(options, chance),
    }


def configs(kind: str) -> list[dict[str, Any]]:
    """All configs of a family."""
    chance = random.Random(f"layouts of {kind}")
    if kind in TOWERS:
        return [tower(kind, turn, chance) for turn in range(MANY)]
    fields = frozenset(FIELDS[kind].split())
    return [encoder(kind, fields, turn, chance) for turn in range(MANY)]
