"""Recipes against transformers: on any config that both can read, the same count."""

import oracle
import pytest

from memserve.model import reader
from memserve.model.recipes import index

LEAST = 4
"""Configs of a family that must have been compared."""


NESTED = {"llama4", "mllama_text_model", "qwen2_5_omni_text", "qwen3_5", "qwen3_5_moe"}
"""What these plain draws cannot build; test_layouts.py draws whole models for them."""


@pytest.mark.engine("hf")
@pytest.mark.parametrize("kind", sorted(index.MODULES.keys() - NESTED))
def test_a_recipe_counts_as_transformers(kind):
    if not oracle.known(kind):
        pytest.skip(f"this transformers has no {kind}")
    if oracle.usual_class(kind) is None:
        pytest.skip(f"{kind} is a part of other models, judged with them")
    tried = oracle.configs(kind)
    wrong = [
        (config, found.parameters, count)
        for config, count in tried
        if (found := reader.from_config(config)).parameters != count or not found.exact
    ]
    assert wrong == []
    assert len(tried) >= LEAST


def small(**more):
    base = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4,
            "vocab_size": 128, "num_key_value_heads": 2, "intermediate_size": 24}  # fmt: skip
    return base | more


@pytest.mark.parametrize(
    ("suffix", "extra"),
    [
        ("Model", -128 * 64),
        ("ForSequenceClassification", -128 * 64 + 2 * 64),
        ("ForTokenClassification", -128 * 64 + 2 * 64 + 2),
    ],
)
def test_the_head_follows_the_class(suffix, extra):
    causal = reader.from_config(small(architectures=["LlamaForCausalLM"])).parameters
    assert reader.from_config(small(architectures=[f"Llama{suffix}"])).parameters == causal + extra


def test_labels_are_counted():
    base = small(architectures=["LlamaForSequenceClassification"])
    seven = {**base, "id2label": {str(n): str(n) for n in range(7)}}
    assert reader.from_config(seven).parameters == reader.from_config(base).parameters + 5 * 64


def test_letters_say_which_layers_attend_to_all():
    config = {**small(), "model_type": "exaone4", "sliding_window": 8, "sliding_window_pattern": "LLLG"}
    kinds = [block.mixer.kind for block in reader.from_config(config).blocks]
    assert kinds == ["sliding", "sliding", "sliding", "full", "full"]
