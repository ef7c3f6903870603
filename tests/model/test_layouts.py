"""Layouts of encoders and towers: every class counts as transformers builds it, and bad configs are named."""

import json
from pathlib import Path

import layout_configs
import oracle
import pytest

from memserve.errors import ModelUnreadable
from memserve.model import reader
from memserve.model.config import Config
from memserve.model.recipes import index, layouts

COUNTS = json.loads((Path(__file__).parents[1] / "data" / "layouts.json").read_text(encoding="utf-8"))
KINDS = [*layout_configs.ENCODERS, *layout_configs.TOWERS]
LEAST = 20
"""Configs of a family that must be compared."""
UNDRAWN = {"clip", "siglip", "voxtral", "mllama_text_model"}
"""Families that only the default configs of test_parameters.py try."""


def test_every_family_is_drawn():
    ours = {
        kind for table in (index.ENCODERS, index.TOWERS) for row in table.values() for kind in row.split()
    }
    assert ours <= {*KINDS, *UNDRAWN}


def compare(configs, counts):
    """The configs that count otherwise."""
    assert len(configs) >= LEAST
    wrong = []
    for config, count in zip(configs, counts, strict=True):
        found = reader.from_config(config)
        if found.parameters != count or not found.exact:
            wrong.append((config, found.parameters, count))
    return wrong


@pytest.mark.sampled(13)
@pytest.mark.parametrize("kind", KINDS)
def test_a_layout_counts_as_transformers_did(kind):
    assert compare(layout_configs.configs(kind), COUNTS[kind]) == []


@pytest.mark.slow
@pytest.mark.engine("hf")
@pytest.mark.parametrize("kind", KINDS)
def test_a_layout_counts_as_transformers_does(kind):
    configs = layout_configs.configs(kind)
    assert compare(configs, [oracle.parameters(config) for config in configs]) == []


@pytest.mark.parametrize("name", sorted(layouts.table()))
def test_a_layout_names_only_what_there_is(name):
    row = layouts.layout(name)
    for line in [*row["body"], *(line for lines in row.get("heads", {}).values() for line in lines)]:
        for word in line.split():
            assert not word.startswith("@") or word[1:] in layouts.table(), line


BERT = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 9,
}


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("intermediate_size", "wide", "whole number"),
        ("intermediate_size", -1, "whole number"),
        ("num_hidden_layers", 1 << 20, "out of range"),
        ("type_vocab_size", [2], "whole number"),
    ],
)
def test_a_size_that_is_none_is_named(field, value, why):
    with pytest.raises(ModelUnreadable, match=f"{field}.*{why}"):
        reader.from_config({**BERT, field: value})


@pytest.mark.parametrize("patch", [0, None, "14"])
def test_a_patch_without_a_size(patch):
    seen = {"model_type": "clip_vision_model", "patch_size": patch}
    words = {"model_type": "llama", **{name: BERT[name] for name in BERT if name != "model_type"}}
    with pytest.raises(ModelUnreadable):
        reader.from_config({"model_type": "llava", "vision_config": seen, "text_config": words})


def test_a_tower_that_nobody_knows_is_estimated():
    words = {**BERT, "model_type": "llama", "intermediate_size": 64}
    seen = {"model_type": "new_eye", "hidden_size": 16, "num_hidden_layers": 2, "patch_size": 14}
    found = reader.from_config({"model_type": "llava", "vision_config": seen, "text_config": words})
    assert not found.exact
    assert found.towers


@pytest.mark.parametrize(
    ("words", "value"),
    [("hidden_size", 32), ("3*hidden_size+2", 98), ("hidden_size/num_attention_heads*2", 16), ("none|7", 7)],
)
def test_sizes_are_sums_of_products(words, value):
    assert layouts.size(Config(BERT, "bert", "config.json"), words) == value


def test_a_class_of_its_own_under_a_known_name_is_an_estimate():
    found = reader.from_config({**BERT, "auto_map": {"AutoModel": "own--modeling.JinaBertModel"}})
    assert not found.exact
    assert any("estimated" in note for note in found.notes)


def test_nomic_before_its_port():
    old = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 64, "vocab_size": 9}
    new = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    kind = {"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "vocab_size": 9}
    found = reader.from_config({**kind, **old, "auto_map": {}})
    assert found.exact
    assert found.parameters == reader.from_config({**kind, **new}).parameters
