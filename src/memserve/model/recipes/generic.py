"""Any model whose config says how large it is: an estimate from the fields, in the common decoder's words.

What a config cannot say (a bias here, a norm there) is guessed from its kin, so `exact` is False.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memserve.errors import ModelUnreadable
from memserve.model.config import LARGEST, MOST_LAYERS, Config
from memserve.model.recipes import decoder, index, mla, modules, tensors
from memserve.model.recipes.modules import Family, Inventory, Moe, Weights
from memserve.model.spec import Block, Quantization
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


NAMES: dict[str, tuple[str, ...]] = {
    "hidden_size": ("d_model", "n_embd", "dim", "model_dim", "embed_dim", "encoder_hidden_size"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers", "depth"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads", "decoder_attention_heads",
                            "encoder_attention_heads", "attention_heads"),
    "vocab_size": ("padded_vocab_size", "n_vocab", "unpadded_vocab_size"),
    "num_key_value_heads": ("num_kv_heads", "n_kv_heads", "multi_query_group_num", "num_query_groups"),
    "head_dim": ("kv_channels", "attention_head_dim", "d_kv"),
    "intermediate_size": ("ffn_hidden_size", "ffn_dim", "n_inner", "d_ff", "decoder_ffn_dim",
                          "encoder_ffn_dim", "inner_dim", "mlp_dim"),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts"),
    "num_experts_per_tok": ("moe_topk", "moe_k", "top_k_experts", "moe_top_k", "num_experts_per_token"),
    "moe_intermediate_size": ("expert_ffn_hidden_size", "moe_ffn_hidden_size"),
    "n_shared_experts": ("num_shared_experts", "moe_num_shared_experts"),
    "shared_expert_intermediate_size": ("moe_shared_expert_intermediate_size", "shared_intermediate_size"),
    "first_k_dense_replace": ("num_dense_layers", "moe_layer_start_index"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "seq_length", "max_sequence_length"),
    "attention_bias": ("add_qkv_bias", "qkv_bias", "use_qkv_bias", "use_bias", "bias"),
    "mlp_bias": ("use_bias", "bias", "add_bias_linear"),
    "hidden_act": ("hidden_activation", "activation_function", "activation", "mlp_hidden_act"),
    "qk_norm": ("use_qk_norm", "qk_layernorm", "use_qk_layernorm"),
}  # fmt: skip
"""Llama's word for a field, and others' words for it."""
REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
LATENT = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
"""Fields that latent attention needs."""
ALONE = (*LATENT, "q_lora_rank", "sliding_window", "type_vocab_size", "layer_types", "tie_word_embeddings",
         "id2label", "num_labels")  # fmt: skip
"""Fields that all call the same."""
TYPES: dict[str, type] = {
    "attention_bias": bool, "mlp_bias": bool, "qk_norm": bool, "hidden_act": str, "layer_types": list,
    "tie_word_embeddings": bool, "id2label": dict,
}  # fmt: skip
"""What a field must be to be read; the others are sizes."""
TEXT = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
TOWERS = ("vision_config", "audio_config", "speech_config", "vision_tower_config", "vit_config", "encoder")
TWO_MATRICES = frozenset(
    {"gelu", "gelu_new", "gelu_fast", "relu", "relu2", "quick_gelu", "squared_relu", "xielu"}
)
"""Activations between two matrices; the others stand in a gate."""


def text_field(config: Config) -> str:
    """The field with the nested config of the language side; empty: the config itself."""
    return next((name for name in TEXT if isinstance(config.given.get(name), dict)), "")


def _translated(config: Config) -> Config:
    """The same config in Llama's words, refused where it does not say how large the model is."""
    values: dict[str, Any] = {"tie_word_embeddings": True}  # what transformers does not write down
    for name, others in {**NAMES, **dict.fromkeys(ALONE, ())}.items():
        spelled = (_usable(config.raw(one), TYPES.get(name, int)) for one in (name, *others))
        found = next((value for value in spelled if value is not None), None)
        if found is not None:
            values[name] = found
    same = Config(values, "", config.path, config.prefix)
    for name in REQUIRED:
        if not same.maybe(name):
            config.bad(
                name, "is missing" if config.raw(name) is None else "must be a whole number above zero"
            )
    heads_, hidden = same.size("num_attention_heads"), same.size("hidden_size")
    if heads_ > hidden and not same.has("head_dim"):
        config.bad("num_attention_heads", f"must not be above the hidden size, {hidden}")
    return same


def _usable(value: Any, wanted: type) -> Any:
    """The value where it is of the wanted kind; of a list of sizes, one for each layer, the middle one."""
    if wanted is int and isinstance(value, list) and value and all(type(one) is int for one in value):
        value = sorted(value)[len(value) // 2]
    if wanted is int:
        return value if type(value) is int and 0 < value <= LARGEST else None
    return value if isinstance(value, wanted) else None


def _family(config: Config) -> Family:
    """How the layers look, as far as the fields tell."""
    plain = config.raw("hidden_act") in TWO_MATRICES or not config.has("intermediate_size")
    encoder = config.has("type_vocab_size")
    biased = encoder or config.flag("attention_bias")
    moe = None
    if config.maybe("num_experts"):
        shared = "shared_expert_intermediate_size" if config.maybe("shared_expert_intermediate_size") else ""
        moe = Moe(
            width="moe_intermediate_size" if config.maybe("moe_intermediate_size") else "intermediate_size",
            shared_width=shared, shared_count="" if shared else "n_shared_experts", layers="first_dense",
            gated=not plain,
        )  # fmt: skip
    return Family(
        qkv_bias=biased, out_bias=encoder, mlp_bias=encoder or config.flag("mlp_bias"),
        qk_norm="head" if config.raw("qk_norm") is True else "", norm="layer" if encoder else "rms",
        mlp="plain" if plain else "gated", moe=moe, windows="window", embed_norm=encoder,
        positions="max_position_embeddings" if encoder and config.has("max_position_embeddings") else "",
    )  # fmt: skip


def _words(config: Config, architecture: str) -> Inventory:
    """A decoder or an encoder of common layers."""
    same = _translated(config)
    if not same.has("intermediate_size"):
        same.given["intermediate_size"] = 4 * same.size("hidden_size")
    family = _family(same)
    if all(same.maybe(field) for field in LATENT):
        return mla.latent(same, architecture, family)
    if _odd(same):
        same.given.pop("layer_types", None)
    body = decoder.assemble(same, family, decoder.stack(same, family))
    found = modules.with_head(same, body, architecture, family)
    if config.raw("is_encoder_decoder") is not True:
        return found._replace(encoder_only=same.has("type_vocab_size"))
    return _with_encoder(config, same, family, found)


def _odd(config: Config) -> bool:
    """Layer kinds that are no attention, or no list of words."""
    listed = config.given.get("layer_types")
    known = ("full_attention", "sliding_attention", "chunked_attention", "attention")
    if not isinstance(listed, list) or len(listed) < config.layers():
        return True
    return any(kind not in known for kind in listed)


def _with_encoder(config: Config, same: Config, family: Family, found: Inventory) -> Inventory:
    """An encoder of the same layers, and a second attention in each layer of the decoder."""
    listed = (_usable(config.raw(name), int) for name in ("encoder_layers", "num_layers"))
    count = next((one for one in listed if one), same.layers())
    block = found.blocks[0]
    attend = decoder.attention(same, family._replace(attention="encoder_attn"), decoder.head_sizes(same))
    crossed = {one: Block(one.mixer, (*one.weights, *attend), one.experts, one.experts_per_token)
               for one in dict.fromkeys(found.blocks)}  # fmt: skip
    return found._replace(
        blocks=tuple(crossed[one] for one in found.blocks),
        encoder=(block,) * min(count, len(found.blocks) * 8),
    )


def _tower(config: Config, name: str, into: int) -> Weights:
    """A vision or audio encoder of common layers, and the matrix that leads to the words."""

    def size(name: str, usual: int = 0) -> int:
        spelled = (_usable(config.raw(one), int) for one in (name, *NAMES.get(name, ())))
        return next((one for one in spelled if one), usual)

    hidden, layers = size("hidden_size"), min(size("num_hidden_layers"), MOST_LAYERS)
    if not hidden or not layers:
        return ()
    width, patch = size("intermediate_size", 4 * hidden), size("patch_size", 16)
    found = (
        *modules.vector("patch_embedding", hidden, size("num_channels", 3), patch, patch),
        *modules.linear("self_attn.qkv_proj", 3 * hidden, hidden, "column", bias=True, count=layers),
        *modules.linear("self_attn.out_proj", hidden, hidden, "row", bias=True, count=layers),
        *modules.linear("mlp.fc1", width, hidden, "column", bias=True, count=layers),
        *modules.linear("mlp.fc2", hidden, width, "row", bias=True, count=layers),
        *modules.norm("norms", hidden, "layer", 2 * layers),
    )
    return (
        *modules.under(name, found),
        *modules.under(f"{name}.projector", modules.linear("linear", into, hidden), part="projector"),
    )


def inventory(config: Config, architecture: str) -> Inventory:
    """The estimate: the text part by its recipe where it has one, towers by their sizes."""
    field = text_field(config)
    inner = config.sub(field) if field else config
    nested = text_field(inner) if field else ""
    if nested:
        inner = inner.sub(nested)
    if field and "tie_word_embeddings" in config.given:
        inner.given["tie_word_embeddings"] = config.given["tie_word_embeddings"]
    own = index.recipe(inner.kind) if field else None
    class_name = "ForCausalLM" if field and modules.task_of(architecture) else architecture
    found = own(inner, class_name) if own else _words(inner, class_name)
    for name in TOWERS:
        if name != field and isinstance(config.given.get(name), dict):
            found = found.adding(towers=_tower(config.sub(name), name.removesuffix("_config"), found.hidden))
    return found._replace(exact=False)
