"""Which module has the recipe of each `model_type`.

A recipe is a function `(config, architecture) -> Inventory`: every weight of the class that a config names,
head included. `architecture` is that class's name; empty where none is named: then the usual one.
To add a recipe: write it in a module of this folder, list it in that module's `RECIPES`, name its type here.
A model that sees lays out its `text_config` by that one's own recipe and adds its towers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, TypeAlias

from memserve.model.config import LARGEST, MOST_LAYERS, Config
from memserve.model.recipes.modules import Inventory
from memserve.model.spec import Quantization

if TYPE_CHECKING:
    from memserve.model.stored.headers import Tensor


Recipe: TypeAlias = Callable[[Config, str], Inventory]

# Decoders: words that generate.
DECODERS: dict[str, str] = {
    "families": (
        "llama mistral ministral ministral3 mixtral qwen2 qwen2_moe qwen3 qwen3_moe gemma gemma2 gemma3_text"
        " phi3 phi glm glm4 gpt_oss starcoder2 granite minimax_m2 glm4_moe sarvam_moe dots1 solar_open hy_v3"
        " exaone exaone4 exaone_moe olmo olmo2 olmo3 olmoe flex_olmo phimoe seed_oss smollm3 stablelm cohere"
        " cohere2 afmoe apertus arcee aria_text bitnet cwm ernie4_5 ernie4_5_moe granite_swa granitemoe"
        " granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe jais2 hyperclovax nanochat nemotron"
        " persimmon vaultgemma diffllama minimax_m3_vl_text gpt_neox internlm3 iquestcoder mellum"
        " kolibri1 granitemoe_swa biogpt qwen2_vl_text qwen2_5_vl_text"
        " qwen3_vl_text qwen3_vl_moe_text glm4v_text glm4v_moe_text qwen2_5_omni_text"
    ),
    "classic": (
        "opt gpt2 falcon bloom mpt gptj codegen gpt_neo gpt_bigcode laguna llama4_text mimo_v2_flash"
    ),
    "mamba": "mamba mamba2 falcon_mamba jamba bamba falcon_h1 granitemoehybrid nemotron_h lfm2 lfm2_moe",
    "mla": (
        "deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 glm_moe_dsa sarvam_mla mistral4 glm4_moe_lite youtu"
        " minicpm3"
    ),
    "gemma": "gemma3 gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text",
    "recurrent": "qwen3_next qwen3_5_text qwen3_5_moe_text kimi_linear",
}

# Encoders, and encoders with a decoder: BERT and its kin, T5, Whisper.
ENCODERS: dict[str, str] = {
    "encoders": (
        "bert roberta xlm-roberta camembert mpnet electra albert distilbert deberta deberta-v2 dpr modernbert"
        " nomic_bert gte eurobert jina_embeddings_v3 ernie xlm mllama_text_model clip siglip t5 mt5 umt5 bart"
        " mbart pegasus m2m_100 marian whisper"
    ),
}

# Models that see or hear: a text part with towers.
TOWERS: dict[str, str] = {
    "encoders": (
        "qwen2_vl qwen2_5_vl qwen3_vl qwen3_vl_moe qwen3_5 qwen3_5_moe llava llava_next llava_next_video"
        " llava_onevision mistral3 internvl idefics3 smolvlm paligemma llama4 glm4v glm4v_moe vipllava"
        " video_llava aya_vision cohere2_vision mllama qwen2_audio voxtral qwen2_5_omni_thinker"
    ),
}

MODULES: dict[str, str] = {
    kind: module
    for table in (DECODERS, ENCODERS, TOWERS)
    for module, kinds in table.items()
    for kind in kinds.split()
}


@cache
def recipe(kind: str) -> Recipe | None:
    """The function that lays out a model of this type; None where there is none."""
    module = MODULES.get(kind)
    if module is None:
        return None
    found: dict[str, Recipe] = import_module(f"memserve.model.recipes.{module}").RECIPES
    return found[kind]


Headers: TypeAlias = "Callable[[], Mapping[str, Tensor]]"

REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
LIMITS = (
    (re.compile(r"^(num_|n_)?(\w+_)?(layers|layer|depth|depths|blocks)$"), MOST_LAYERS),
    (re.compile(r"^(num|n)_(\w+_)?experts$"), 1 << 14),
)
LONGEST_LIST = 1 << 14
LETTERS_FIELD = "sliding_window_pattern"
"""A number, or a letter for each layer: `LLLG`."""


def inventory(config: Config, architecture: str, headers: Headers | None = None,
              stored_as: Quantization | None = None) -> tuple[Inventory, str]:  # fmt: skip
    """Layers and weights of the class a config names, and a note on how they were found.

    `headers` reads the names and shapes of the stored tensors; asked only where no recipe knows the family.
    """
    found, own = recipe(config.kind), None
    if found is not None:
        check(config)
        own = found(config, architecture)
        if own.exact:
            return own, ""
    from memserve.model.recipes import generic

    kind = config.kind[:60]
    stored = headers() if headers else None
    if stored:
        counted = generic.from_tensors(stored, config.given, stored_as)
        return counted, f"{kind} has no recipe here: counted from the stored tensors"
    _sane(config)
    note = f"{kind} has no recipe here: its parameters are estimated from the fields of its config"
    return own or generic.inventory(config, architecture), note


def check(config: Config) -> None:
    """Refuse a config that does not say how large the model is, or says nonsense."""
    if config.subs:
        flat = config.has("hidden_size") and config.has("num_hidden_layers")
        if not flat and not any(isinstance(config.given.get(name), dict) for name in config.subs):
            config.bad(next(iter(config.subs)), "is missing")
        for name in config.subs:
            if config.has(name):
                _sane(config.sub(name))
    elif config.known:
        for field in REQUIRED:
            target = config.aliases.get(field, field)
            if config.fields.get(target) is None:
                continue
            if not config.has(field):
                config.bad(target, "is missing")
            if isinstance(config.fields[target], int) and not config.size(field):
                config.bad(target, "must not be zero")
    _sane(config)


def _sane(config: Config) -> None:
    """Every field whose class default is a whole number is a number within reason, or null."""
    for field, default in config.fields.items():
        value = config.given.get(field)
        letters = field == LETTERS_FIELD and isinstance(value, str)
        if value is None or isinstance(default, bool) or not isinstance(default, int) or letters:
            continue
        if isinstance(value, (bool, str, dict)):
            config.bad(field, f"must be a whole number, not {type(value).__name__}")
        if isinstance(value, list) and len(value) > LONGEST_LIST:
            config.bad(field, "is too long")
        limit = next((most for pattern, most in LIMITS if pattern.search(field)), LARGEST)
        if isinstance(value, (int, float)) and not -limit <= value <= limit:
            config.bad(field, f"is out of range: {str(value)[:20]}")
