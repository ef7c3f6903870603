"""Models counted from what is stored: headers of safetensors files, a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memserve.errors import ModelUnreadable
from memserve.model.config import MOST_LAYERS
from memserve.model.recipes import tensors
from memserve.model.recipes.modules import Inventory
from memserve.model.spec import Quantization
from memserve.model.stored import headers
from memserve.model.stored.headers import Gguf, Tensor

GGUF_NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj", "ffn_down_exps": "mlp.experts.down_proj",
    "ffn_gate_inp": "mlp.gate", "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj", "ffn_down_shexp": "mlp.shared_experts.down_proj",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_b": "self_attn.kv_b_proj", "attn_q_a": "self_attn.q_a_proj", "attn_q_b": "self_attn.q_b_proj",
    "token_embd": "embed_tokens", "output": "lm_head", "output_norm": "norm",
}  # fmt: skip


class Plain:
    """A config as a constructor would see it, without a class behind it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.is_encoder_decoder = bool(values.get("is_encoder_decoder", False))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.values:
            raise AttributeError(name)
        return self.values[name]

    def get_text_config(self, **_named: Any) -> Plain:
        """The nested config of the text side."""
        for name in ("text_config", "llm_config", "language_config"):
            inner = self.values.get(name)
            if isinstance(inner, dict):
                return Plain({"model_type": "", **inner})
        return self


def from_tensors(stored: Mapping[str, Tensor], values: Mapping[str, Any],
                 quantization: Quantization | None) -> Inventory:  # fmt: skip
    """A body from the names and shapes in the headers of safetensors files."""
    config = Plain({"model_type": "", **values})
    layers = getattr(config.get_text_config(), "num_hidden_layers", None)
    shapes = headers.unpacked(stored, quantization, layers)
    if values.get("tie_word_embeddings") is True:
        shapes = {name: shape for name, shape in shapes.items() if not name.endswith("lm_head.weight")}
    return tensors.inventory(shapes, {}, config)


def from_gguf(file: Gguf, path: str) -> tuple[Inventory, Quantization, Plain]:
    """A body, its storage and its settings from one GGUF file."""
    kind = str(file.metadata.get("general.architecture", ""))
    values = _gguf_settings(file, kind)
    config = Plain(values)
    layers = values["num_hidden_layers"]
    if not isinstance(layers, int) or not 0 < layers <= MOST_LAYERS:
        raise ModelUnreadable(f"{path}: has no {kind}.block_count", path=path, field=f"{kind}.block_count")
    shapes = {
        _gguf_name(name): entry.shape for name, entry in file.tensors.items() if not name.startswith("rope_")
    }
    tied = {} if "lm_head.weight" in shapes else {"lm_head.weight": shapes.get("embed_tokens.weight", (0, 0))}
    count = sum(entry.bytes for entry in file.tensors.values())
    elements = sum(1 for _ in shapes) and sum(_size(shape) for shape in shapes.values())
    bits = 8 * count / elements if elements else 16.0
    form = file.quantization
    plain = form in ("f16", "bf16", "f32")
    quantization = Quantization("none" if plain else f"gguf-{form}", "gguf", round(bits, 4), format=form)
    return tensors.inventory(shapes, tied, config), quantization, config


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def _gguf_settings(file: Gguf, kind: str) -> dict[str, Any]:
    def get(name: str) -> Any:
        return file.metadata.get(f"{kind}.{name}")

    heads = get("attention.head_count")
    kv = get("attention.head_count_kv")
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    embedded = file.tensors.get("token_embd.weight")
    vocabulary = tokens if isinstance(tokens, int) else embedded.shape[0] if embedded else 0
    return {
        "model_type": kind, "num_hidden_layers": get("block_count"), "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_attention_heads": max(heads) if isinstance(heads, list) else heads,
        "num_key_value_heads": max(kv) if isinstance(kv, list) else kv,
        "head_dim": get("attention.key_length"), "vocab_size": vocabulary,
        "max_position_embeddings": get("context_length"), "sliding_window": get("attention.sliding_window"),
        "num_experts_per_tok": get("expert_used_count"), "kv_lora_rank": get("attention.kv_lora_rank"),
        "rope_parameters": {},
    }  # fmt: skip


def _gguf_name(name: str) -> str:
    """A tensor's name as transformers would have it."""
    parts = name.split(".")
    layer, rest = (f"layers.{parts[1]}.", parts[2:]) if parts[0] == "blk" and len(parts) > 2 else ("", parts)
    return f"{layer}{GGUF_NAMES.get(rest[0], rest[0])}{''.join(f'.{part}' for part in rest[1:])}"
