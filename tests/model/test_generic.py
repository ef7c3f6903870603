"""Estimates: whatever says how large it is, is planned."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memserve.errors import ModelUnreadable
from memserve.model import load, reader
from memserve.model.recipes import generic

SIZES = st.integers(1, 1 << 20)
NEEDED = st.fixed_dictionaries(
    {
        "hidden_size": st.sampled_from([64, 768, 4096]), "num_hidden_layers": st.integers(1, 100),
        "num_attention_heads": st.sampled_from([1, 4, 32]), "vocab_size": SIZES,
    }
)  # fmt: skip
OTHERS = sorted(
    {name for names in generic.NAMES.items() for name in (names[0], *names[1])} - set(generic.REQUIRED)
)
ODD = (
    st.none()
    | st.booleans()
    | SIZES
    | st.text(max_size=5)
    | st.lists(SIZES | st.none(), max_size=3)
    | st.floats()
)
REST = st.dictionaries(
    st.sampled_from(
        [*OTHERS, "layer_types", "sliding_window", "kv_lora_rank", "type_vocab_size", "is_encoder_decoder"]
    ),
    ODD,
)


@given(NEEDED, REST, st.sampled_from(["", "text_config", "llm_config"]))
def test_what_says_how_large_it_is_is_planned(needed, rest, field):
    words = {**rest, **needed}
    config = {"model_type": "nobody_knows", **({field: words, "vision_config": rest} if field else words)}
    spec = reader.from_config(config)
    assert not spec.exact
    assert spec.parameters > 0
    assert len(spec.blocks) == needed["num_hidden_layers"]


@pytest.mark.parametrize("field", generic.REQUIRED)
def test_what_does_not_say_it_is_refused_in_a_line(field):
    config = dict.fromkeys(generic.REQUIRED, 8) | {"model_type": "nobody_knows"}
    del config[field]
    with pytest.raises(ModelUnreadable, match=field):
        reader.from_config(config)


KIMI = {
    "model_type": "kimi_vl", "architectures": ["KimiVLForConditionalGeneration"],
    "vision_config": {"model_type": "moonvit", "hidden_size": 1152, "num_hidden_layers": 27,
                      "num_attention_heads": 16, "intermediate_size": 4304, "patch_size": 14},
    "text_config": {
        "model_type": "deepseek_v3", "hidden_size": 2048, "intermediate_size": 11264, "num_hidden_layers": 27,
        "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 163840, "n_routed_experts": 64,
        "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "kv_lora_rank": 512,
        "q_lora_rank": None, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "first_k_dense_replace": 1, "tie_word_embeddings": False,
    },
}  # fmt: skip


def test_a_model_that_sees_is_its_words_and_an_estimated_tower():
    """Kimi-VL-A3B: 16.4 billion parameters as published."""
    spec = reader.from_config(KIMI)
    assert not spec.exact
    assert spec.parameters == pytest.approx(16.4e9, rel=0.03)
    assert spec.blocks[0].mixer.kind == "mla"


@pytest.mark.parametrize(
    ("name", "billions"), [("moonshotai/Kimi-K3", 2779.93), ("moonshotai/Kimi-K2.6", 1026)]
)
def test_estimated_models_of_the_catalogue_have_the_published_total(name, billions):
    assert load(name).parameters == pytest.approx(billions * 1e9, rel=0.01)
