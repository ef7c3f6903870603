"""A config that tells of another model than the files hold is refused before anything large is made."""

from __future__ import annotations

import json
import logging

import pytest
from tiny_hf import causal

import memserve
from memserve.errors import ModelUnreadable

pytestmark = pytest.mark.engine("hf")
HUGE = {"hidden_size": 16384, "num_hidden_layers": 120, "intermediate_size": 65536, "head_dim": 128,
        "num_attention_heads": 128, "num_key_value_heads": 128}  # fmt: skip


def edited(folder, name="config.json", **changes):
    """A tiny model whose config says something else; None takes a field away."""
    causal(folder)
    known = {**json.loads((folder / name).read_text()), **changes}
    (folder / name).write_text(json.dumps({key: value for key, value in known.items() if value is not None}))
    return folder


def refused(folder) -> ModelUnreadable:
    with pytest.raises(ModelUnreadable) as caught:
        memserve.generator(str(folder), backend="hf", dtype="float32")
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("field", ["hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size"])
def test_what_a_config_lacks_is_named(tmp_path, field):
    error = refused(edited(tmp_path, **{field: None}))
    assert error.field == field
    assert error.path.endswith("config.json")


@pytest.mark.parametrize(
    ("field", "value"), [("hidden_size", "many"), ("hidden_size", -4), ("dtype", "float3")]
)
def test_what_a_config_misspells_is_named(tmp_path, field, value):
    assert refused(edited(tmp_path, **{field: value})).field == field


def test_a_config_of_a_giant_takes_no_memory(tmp_path):
    assert "do not belong together" in str(refused(edited(tmp_path, **HUGE)))


def test_a_weight_of_another_shape_is_named_with_both(tmp_path):
    error = refused(edited(tmp_path, intermediate_size=80))
    assert "(32, 80), stored is (32, 64)" in str(error)
    assert "mlp" in str(error.field)


def test_weights_without_a_place_are_told(tmp_path, caplog):
    edited(tmp_path, num_hidden_layers=3)
    with caplog.at_level(logging.WARNING, "memserve"), memserve.generator(str(tmp_path), backend="hf"):
        assert "9 stored weights have no place" in caplog.text


def test_a_broken_generation_config_is_named(tmp_path):
    causal(tmp_path)
    (tmp_path / "generation_config.json").write_text("{{")
    assert refused(tmp_path).path.endswith("generation_config.json")


def test_an_end_that_is_no_token_is_named(tmp_path):
    assert refused(edited(tmp_path, "generation_config.json", eos_token_id="</s>")).field == "eos_token_id"


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    causal(tmp_path)
    raw = (tmp_path / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    (tmp_path / "model.safetensors").write_bytes(raw[:start] + b"\xff" * (len(raw) - start))
    assert "not numbers" in str(refused(tmp_path))


def test_a_tokenizer_that_is_not_there_says_what_is_looked_for(tmp_path):
    causal(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    assert "tokenizer.json" in str(refused(tmp_path))


def test_a_template_that_leaves_the_message_out_is_refused(tmp_path):
    causal(tmp_path, template="hello")
    assert refused(tmp_path).field == "chat_template"


def test_a_template_over_parts_gets_parts(tmp_path):
    parts = "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"  # noqa: E501
    causal(tmp_path, template=parts)
    with memserve.generator(str(tmp_path), backend="hf") as generator:
        assert generator.count_tokens("the old river") == 3
        mixed = [{"role": "user", "content": [{"type": "text", "text": "the old"}]}]
        assert generator.count_tokens(mixed) == 2
