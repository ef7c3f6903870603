"""Which module has the recipe of each `model_type`.

A recipe is a function `(config, architecture) -> Inventory`: every weight of the class that a config names,
head included. `architecture` is that class's name; empty where none is named: then the usual one.
To add a recipe: write it in a module of this folder, list it in that module's `RECIPES`, name its type here.
A model that sees lays out its `text_config` by that one's own recipe and adds its towers.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TypeAlias

from memserve.model.config import Config
from memserve.model.recipes.modules import Inventory

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
    "classic": "opt gpt2 falcon bloom mpt gptj codegen gpt_neo gpt_bigcode",
    "varied": "laguna llama4_text mimo_v2_flash",
    "mamba": "mamba mamba2 falcon_mamba jamba bamba falcon_h1 granitemoehybrid nemotron_h lfm2 lfm2_moe",
    "mla": (
        "deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 glm_moe_dsa sarvam_mla mistral4 glm4_moe_lite youtu"
        " minicpm3"
    ),
    "gemma": "gemma3 gemma4 gemma4_text gemma4_unified gemma4_unified_text",
    "gemma3n": "gemma3n_text",
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
