"""Configs of repositories with code of their own, put into the words of the same model in transformers."""

from collections.abc import Callable, Mapping
from typing import Any

Values = dict[str, Any]


def _chatglm(given: Mapping[str, Any]) -> Values:
    """ChatGLM and GLM-4 before their port: transformers' `glm`."""
    heads = given.get("num_attention_heads")
    grouped = given.get("multi_query_attention")
    return {
        **{k: v for k, v in given.items() if k not in ("num_layers", "auto_map")},
        "model_type": "glm",
        "architectures": ["GlmForCausalLM"],
        "num_hidden_layers": given.get("num_hidden_layers", given.get("num_layers")),
        "intermediate_size": given.get("ffn_hidden_size"),
        "vocab_size": given.get("padded_vocab_size", given.get("vocab_size")),
        "num_key_value_heads": given.get("multi_query_group_num") if grouped else heads,
        "head_dim": given.get("kv_channels"),
        "attention_bias": bool(given.get("add_qkv_bias", False)),
        "max_position_embeddings": given.get("seq_length"),
    }


def _renamed(kind: str, architecture: str, **fields: str) -> Callable[[Mapping[str, Any]], Values]:
    """A family that differs in its name, and in the names of some fields, only."""

    def adapt(given: Mapping[str, Any]) -> Values:
        changed = {new: given[old] for new, old in fields.items() if old in given}
        return {**given, **changed, "model_type": kind, "architectures": [architecture]}

    return adapt


def _qwen1(given: Mapping[str, Any]) -> Values:
    """The first Qwen: Qwen2's layer, with a doubled feed-forward width in its config."""
    width = given.get("intermediate_size")
    return {
        **given, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"],
        "intermediate_size": width // 2 if isinstance(width, int) else width,
        "num_key_value_heads": given.get("num_attention_heads"),
    }  # fmt: skip


def _minicpm(given: Mapping[str, Any]) -> Values:
    """MiniCPM: Llama, with the tied embeddings that were the default when it was written."""
    return {
        "tie_word_embeddings": True, **given, "model_type": "llama", "architectures": ["LlamaForCausalLM"],
    }  # fmt: skip


def _internvl(given: Mapping[str, Any]) -> Values:
    """InternVL's own repositories: the same model as transformers' `internvl`."""
    seen = given.get("vision_config")
    text = given.get("llm_config")
    vision = dict(seen) if isinstance(seen, dict) else {}
    return {
        "model_type": "internvl",
        "architectures": ["InternVLForConditionalGeneration"],
        "text_config": dict(adapt(text)) if isinstance(text, dict) else text,
        "vision_config": {
            **{name: vision[name] for name in VISION_FIELDS if name in vision},
            "model_type": "internvl_vision",
            "attention_bias": bool(vision.get("qkv_bias", True)),
            "use_qk_norm": bool(vision.get("qk_normalization", False)),
        },
        "downsample_ratio": given.get("downsample_ratio", 0.5),
        "tie_word_embeddings": bool(given.get("tie_word_embeddings", False)),
        **{name: given[name] for name in ("torch_dtype", "dtype", "quantization_config") if name in given},
    }


def _nomic(given: Mapping[str, Any]) -> Values:
    """Nomic's encoder before its port, in GPT-2's words."""
    words = {
        "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
        "intermediate_size": "n_inner", "max_position_embeddings": "n_positions",
    }  # fmt: skip
    changed = {new: given[old] for new, old in words.items() if old in given}
    return {**changed, **{name: value for name, value in given.items() if name != "auto_map"}}


VISION_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size",
    "patch_size", "norm_type", "num_channels",
)  # fmt: skip
ADAPTERS: dict[str, Callable[[Mapping[str, Any]], Values]] = {
    "chatglm": _chatglm, "qwen": _qwen1, "kimi_k2": _renamed("deepseek_v3", "DeepseekV3ForCausalLM"),
    "Yi": _renamed("llama", "LlamaForCausalLM"), "internlm2": _renamed("llama", "LlamaForCausalLM"),
    "internlm": _renamed("llama", "LlamaForCausalLM", attention_bias="bias"),
    "mimo": _renamed("qwen2", "Qwen2ForCausalLM"), "baichuan": _renamed("llama", "LlamaForCausalLM"),
    "minicpm": _minicpm, "internvl_chat": _internvl, "nomic_bert": _nomic,
    "aquila": _renamed("llama", "LlamaForCausalLM"),
}  # fmt: skip


def adapt(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config itself, or its translation."""
    kind = given.get("model_type")
    adapter = ADAPTERS.get(kind) if isinstance(kind, str) else None
    return adapter(given) if adapter else given
