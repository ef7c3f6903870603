"""A broken config is refused with its file and field: never a traceback, never a wait."""

import json

import pytest
from counting import calls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memserve.errors import InvalidInput, MemserveError, ModelUnreadable, UnknownName
from memserve.model import load, reader
from memserve.model.config import class_defaults

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256,
}  # fmt: skip
BERT = {**LLAMA, "model_type": "bert", "architectures": ["BertModel"]}
T5 = {
    "model_type": "t5",
    "architectures": ["T5Model"],
    "d_model": 64,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 256,
}
REQUIRED = ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]


@pytest.mark.parametrize("field", REQUIRED)
@pytest.mark.parametrize(
    "config", [LLAMA, BERT, {**LLAMA, "model_type": "olmo2"}], ids=lambda c: c["model_type"]
)
def test_what_must_be_said(config, field):
    with pytest.raises(ModelUnreadable, match=field) as caught:
        reader.from_config({k: v for k, v in config.items() if k != field}, path="here/config.json")
    assert caught.value.field == field
    assert caught.value.path == "here/config.json"
    assert "here/config.json" in str(caught.value)


@pytest.mark.parametrize("field", ["d_model", "num_layers", "num_heads", "vocab_size"])
def test_what_must_be_said_under_other_names(field):
    with pytest.raises(ModelUnreadable, match=field):
        reader.from_config({k: v for k, v in T5.items() if k != field})


def test_aliases_are_read():
    other = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 256}
    one = {**other, "n_embd": 64, "n_layer": 2, "n_head": 4}
    two = {**other, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    assert reader.from_config(one).parameters == reader.from_config(two).parameters


@pytest.mark.parametrize("value", [-1, 0, "64", 1.5, True, [64], {}, None, 10**30, -(10**30)])
@pytest.mark.parametrize("field", REQUIRED)
@pytest.mark.parametrize("config", [LLAMA, BERT], ids=lambda c: c["model_type"])
def test_nonsense_in_a_size(config, field, value):
    with pytest.raises(ModelUnreadable, match=field):
        reader.from_config({**config, field: value})


@pytest.mark.parametrize(
    ("text", "word"),
    [("", "JSON"), ("{", "JSON"), ("[]", "object"), ("nan", "JSON"), ("[" * 100_000, "JSON"),
     ('"a"', "object"),
     ("{}", "model_type"), ('{"model_type": 3}', "model_type"),
     ('{"model_type": "llama", "architectures": 1}', "architectures")],
)  # fmt: skip
def test_files_that_are_no_config(tmp_path, text, word):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelUnreadable, match=word):
        load(path)


def test_a_file_of_bytes(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ModelUnreadable, match="JSON"):
        load(path)


@pytest.mark.parametrize("name", ["", "   ", "a" * 5000, "a\0b", 3, None])
def test_names_that_are_no_names(name):
    with pytest.raises((InvalidInput, TypeError)):
        load(name)


def test_an_empty_folder(tmp_path):
    with pytest.raises(ModelUnreadable, match=r"config\.json"):
        load(tmp_path)


def test_an_unknown_family_is_estimated(tmp_path):
    config = {**LLAMA, "model_type": "nobody_knows", "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = load(tmp_path)
    assert not spec.exact
    assert load_parameters(LLAMA) == pytest.approx(spec.parameters, rel=0.03)
    assert "estimated" in " ".join(spec.notes)


def load_parameters(config):
    return reader.from_config(config).parameters


@pytest.mark.parametrize("field", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_an_unknown_family_must_say_how_large_it_is(field):
    config = {name: value for name, value in LLAMA.items() if name != field} | {"model_type": "nobody_knows"}
    with pytest.raises(ModelUnreadable, match=field) as caught:
        reader.from_config(config)
    assert "\n" not in str(caught.value)


def test_a_typing_error_is_met_with_names():
    with pytest.raises(UnknownName, match="did you mean") as caught:
        load("lama-70b")
    assert "llama-70b" in caught.value.suggestions


@pytest.mark.parametrize(("name", "said"), [
    ("/nonexistent/folder", "no such file or folder"), ("~/x", "no such file or folder"),
    ("./x", "no such file or folder"), ("x.gguf", "no such file or folder"), ("foo bar", "memserve models"),
])  # fmt: skip
def test_what_is_not_there_says_what_to_do(name, said):
    with pytest.raises(UnknownName, match=said) as caught:
        load(name)
    assert "did you mean" not in str(caught.value)


def test_nested_configs_may_rely_on_their_class():
    config = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {},
        "vision_config": {},
    }
    assert reader.from_config(config).parameters > 6_800_000_000
    with pytest.raises(ModelUnreadable, match="config"):
        reader.from_config({"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]})


def test_layers_must_be_named_for_all():
    with pytest.raises(ModelUnreadable, match="layer_types"):
        reader.from_config({**LLAMA, "model_type": "qwen3", "layer_types": ["full_attention"]})


KINDS = [
    "llama",
    "qwen3_moe",
    "deepseek_v3",
    "gemma3_text",
    "qwen3_next",
    "bert",
    "t5",
    "mamba2",
    "falcon",
    "modernbert",
]
WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_any_config_is_read_or_refused(kind, data):
    row = class_defaults(kind)
    names = [
        *row["fields"],
        *row.get("map", {}),
        "rope_scaling",
        "quantization_config",
        "torch_dtype",
        "id2label",
    ]
    base = {
        row.get("map", {}).get(k, k): v for k, v in LLAMA.items() if k not in ("model_type", "architectures")
    }
    wild = data.draw(st.dictionaries(st.sampled_from(names), WILD, max_size=5))
    found = []

    def read():
        try:
            found.append(reader.from_config({**base, **wild, "model_type": kind}).parameters)
        except MemserveError as error:
            found.append(str(error))

    assert calls(read) < 1_000_000
    (answer,) = found
    assert answer >= 0 if isinstance(answer, int) else "\n" not in answer and len(answer) < 600


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(max_size=12), WILD, max_size=6))
def test_any_table_is_read_or_refused(table):
    try:
        reader.from_config(table)
    except MemserveError as error:
        assert str(error)
