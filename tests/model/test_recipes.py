"""Recipes and transformers' constructors are two ways to one inventory: they must agree on any config."""

from math import prod

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memserve.errors import ModelUnreadable
from memserve.model.config import Config, class_defaults
from memserve.model.recipes import build, index
from memserve.model.standin import library

KINDS = sorted(
    kind for kind in index.MODULES if not kind.endswith("vl_text") and not class_defaults(kind).get("subs")
)
REQUIRED = {"hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4, "vocab_size": 128}
SIZES = st.sampled_from([1, 2, 4, 8, 16, 32])


def small(kind):
    row = class_defaults(kind)
    fields = row["fields"]
    config = {row.get("map", {}).get(name, name): size for name, size in REQUIRED.items()}
    config |= {name: 4 for name in ("num_experts", "num_local_experts", "n_routed_experts") if name in fields}
    config |= {name: 2 for name in ("num_key_value_heads", "num_experts_per_tok") if fields.get(name)}
    return config


def changes(kind):
    """Any optional field left out, null, flipped or resized."""
    row = class_defaults(kind)
    kept = {row.get("map", {}).get(name, name) for name in REQUIRED} | {"architectures", "is_encoder_decoder"}
    options = {}
    for name, default in row["fields"].items():
        if name in kept or name.startswith("_"):
            continue
        if isinstance(default, bool):
            options[name] = st.booleans()
        elif isinstance(default, int):
            options[name] = SIZES
        elif default is None:
            options[name] = st.none() | SIZES
    return st.fixed_dictionaries({}, optional=options)


def counted(kind, config, architecture):
    found, _ = build.inventory(Config(config, kind, kind), architecture)
    layers = [w for block in (*found.blocks, *found.encoder) for w in block.weights]
    return sum(weight.parameters for weight in (*found.stem, *layers, *found.top, *found.towers))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_a_recipe_counts_as_the_constructor(kind, data):
    config = {**small(kind), **data.draw(changes(kind)), "model_type": kind}
    architecture = library.default_class(kind)
    try:
        built = library.build(config, kind, architecture)
    except Exception:
        return  # transformers cannot build this one
    want = sum(prod(shape) for shape in built.shapes.values())
    if want <= 0 or any(side <= 0 for shape in built.shapes.values() for side in shape):
        return
    try:
        found = counted(kind, config, architecture)
    except ModelUnreadable:
        return
    assert found == want


@pytest.mark.parametrize(
    ("suffix", "extra"),
    [
        ("Model", -128 * 64),
        ("ForSequenceClassification", -128 * 64 + 2 * 64),
        ("ForTokenClassification", -128 * 64 + 2 * 64 + 2),
    ],
)
def test_the_head_follows_the_class(suffix, extra):
    base = {**small("llama"), "model_type": "llama", "tie_word_embeddings": False}
    causal = counted("llama", base, "LlamaForCausalLM")
    assert counted("llama", base, f"Llama{suffix}") == causal + extra


def test_labels_are_counted():
    base = {**small("llama"), "id2label": {str(n): str(n) for n in range(7)}}
    two = counted("llama", small("llama"), "LlamaForSequenceClassification")
    assert counted("llama", base, "LlamaForSequenceClassification") == two + 5 * 64
