"""transformers on the meta device, as the judge of our recipes: what it builds, and configs to try."""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import re
import warnings

VARIED = 8
"""Configs tried for each family."""
TABLES = ("MODEL_FOR_CAUSAL_LM", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM", "MODEL_FOR_IMAGE_TEXT_TO_TEXT",
          "MODEL_FOR_MASKED_LM", "MODEL_FOR_SPEECH_SEQ_2_SEQ", "MODEL")  # fmt: skip
SEEING = "MODEL_FOR_IMAGE_TEXT_TO_TEXT"
SIZES = (1, 2, 4, 8, 16, 32)
SMALL = {"hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4, "vocab_size": 128}
FOUR = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "zero_expert_num")
TWO = ("num_key_value_heads", "num_experts_per_tok", "moe_k", "moe_topk")
WIDTHS = ("intermediate_size", "moe_intermediate_size")
# What transformers demands of a family beyond the fields' own types, so that a small model can be built.
DEMANDS = {
    "helium": {"head_dim": 16},
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "num_hidden_layers": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"] * 2,
    },
    "lfm2_moe": {"layer_types": ["full_attention", "conv", "conv", "full_attention", "conv"]},
    "gpt_neo": {"attention_types": [[["global"], 5]]},
    "mamba2": {"num_heads": 16, "head_dim": 8, "expand": 2},
    "jamba": {
        "attn_layer_period": 4,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
}  # fmt: skip
NO_SHAPE = re.compile(
    r"dropout|drop_path|droprate|_eps$|epsilon|initializer|init_std|token_id|token_index|_ids?$|^output_hid|"
    r"^output_att|coef|jitter|^summary_|use_cache|^rope_|softcap|(?<!dim)_multiplier$|factor$|theta|scal|layerdrop|"
    r"^mask_(time|feature)|_loss|_penalty|beta$|alpha$|gain|_std$|activation|^hidden_act|_act$|chunk_size_feed|"
    r"architectures|dtype|id2label|label2id"
)


def _mapping():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING


def known(kind):
    """Whether transformers has this family."""
    return kind in _mapping()


def usual_class(kind):
    """The class that generates, else that fills in words, else the bare one; None: a part of others."""
    from transformers.models.auto import modeling_auto

    seeing = getattr(_mapping()[kind], "sub_configs_defaults", None)
    for table in (SEEING, *TABLES) if seeing else TABLES:
        name = getattr(modeling_auto, f"{table}_MAPPING_NAMES").get(kind)
        if name:
            return name if isinstance(name, str) else name[0]
    return None


def built(config):
    """The model that transformers builds, without memory: the class that `architectures` names."""
    import torch
    import transformers

    logging.disable(logging.CRITICAL)
    values = {
        name: value for name, value in config.items() if name not in ("quantization_config", "model_type")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = _mapping()[config["model_type"]].from_dict(json.loads(json.dumps(values)))
        with torch.device("meta"):
            model = getattr(transformers, config["architectures"][0])(settings)
        model.tie_weights()
    return model


def parameters(config):
    """How many parameters transformers builds: tied ones once, no buffers."""
    return sum(weight.numel() for weight in built(config).parameters())


def _fields(kind):
    from transformers import PreTrainedConfig

    common = {field.name for field in dataclasses.fields(PreTrainedConfig)} - {"tie_word_embeddings"}
    found = (field for field in dataclasses.fields(_mapping()[kind]) if field.name not in common)
    return [field for field in found if not field.name.startswith("_")]


def small(kind):
    """A small model of a family, everything else by default."""
    cls = _mapping()[kind]
    names = {field.name for field in dataclasses.fields(cls)}
    found = {cls.attribute_map.get(name, name): size for name, size in SMALL.items()}
    found |= dict.fromkeys(FOUR, 4) | dict.fromkeys(TWO, 2) | dict.fromkeys(WIDTHS, 24) | {"pad_token_id": 0}
    return {name: value for name, value in found.items() if name in names} | DEMANDS.get(kind, {})


def _varied(kind, chance):
    """Some optional fields flipped, resized or null."""
    kept = set(small(kind)) - {*WIDTHS, "num_key_value_heads"}
    found = {}
    for field in _fields(kind):
        if (
            field.name in kept
            or NO_SHAPE.search(field.name)
            or "list" in str(field.type)
            or chance.random() < 0.5
        ):
            continue
        default = None if field.default is dataclasses.MISSING else field.default
        if isinstance(default, bool):
            found[field.name] = chance.random() < 0.5
        elif isinstance(default, int):
            found[field.name] = chance.choice(SIZES)
        elif default is None and "int" in str(field.type):
            found[field.name] = chance.choice((None, *SIZES))
    return found


def drawn(kind, chance, plain=False):
    """One config of a family, nested ones included."""
    nested = getattr(_mapping()[kind], "sub_configs_defaults", None) or {}
    found = {} if plain else _varied(kind, chance)
    if not nested:
        return {**small(kind), **found}
    for field, part in nested.items():
        inner = part.model_type
        found[field] = {**drawn(inner, chance, plain), "model_type": inner} if known(inner) else {}
    return found


def configs(kind, many=VARIED):
    """Configs that transformers can build, with what it counts; the first is the small one of defaults."""
    chance, architecture, found = random.Random(kind), usual_class(kind), []
    for turn in range(4 * many):
        config = {**drawn(kind, chance, not turn), "model_type": kind, "architectures": [architecture]}
        try:
            count = parameters(config)
        except Exception:  # odd draws are refused in as many ways as there are families
            continue
        found.append((config, count))
        if len(found) == many:
            break
    return found
