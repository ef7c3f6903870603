"""Every dialect of quantization_config, in memserve's names."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memserve.errors import MemserveError, ModelUnreadable
from memserve.model import load
from memserve.model.stored import quantization


def compressed(weights, inputs=None, form="", ignore=("lm_head",)):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "format": form, "ignore": list(ignore),
            "config_groups": {"group_0": group}}  # fmt: skip


def quark(dtype, **more):
    return {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": dtype, **more}}}


INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
FP8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
FP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
DYNAMIC = {"num_bits": 8, "type": "int", "dynamic": True}

CASES = [
    ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True, "sym": True}, "gptq", 4, 128),
    ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "gptq", 8, -1),
    ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}, "awq", 4, 128),
    ({"w_bit": 4, "q_group_size": 64, "zero_point": True}, "awq", 4, 64),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4", 4, 64),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8", 8, -1),
    ({"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}, "fp8", 8, None),
    ({"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["lm_head"]}, "fp8", 8, -1),
    (compressed(INT4, form="pack-quantized"), "w4a16", 4, 128),
    (compressed(INT8, DYNAMIC, "int-quantized"), "w8a8", 8, -1),
    (compressed(FP8, {"num_bits": 8, "type": "float", "dynamic": True}, "float-quantized"), "fp8", 8, -1),
    (compressed(FP4, {"num_bits": 4, "type": "float"}, "nvfp4-pack-quantized"), "nvfp4", 4, 16),
    (compressed({**FP4, "group_size": 32}, None, "mxfp4-pack-quantized"), "mxfp4", 4, 32),
    ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}}, "fp8", 8, None),
    ({"quantization": {"quant_algo": "NVFP4", "group_size": 16}}, "nvfp4", 4, 16),
    ({"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}, "mxfp4", 4, 32),
    (quark("fp4", group_size=32), "mxfp4", 4, 32),
    (quark("fp8_e4m3"), "fp8", 8, None),
    ({"quant_method": "ascend", "quantize": "w8a8_dynamic", "ignore": ["lm_head"]}, "w8a8", 8, -1),
    ({"quant_method": "modelslim", "gate.weight": "FLOAT", "a.weight": "W8A8_DYNAMIC"}, "w8a8", 8, -1),
    ({"quant_method": "auto-round", "bits": 4, "packing_format": "auto_round:auto_awq"}, "awq", 4, 128),
]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "method", "bits", "group"), CASES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_dialects(table, method, bits, group):
    found = quantization.read(table)
    assert (found.method, found.bits, found.group_size) == (method, bits, group)


def test_what_is_left_out_is_kept_as_written():
    assert quantization.read(compressed(INT4, ignore=["lm_head", "re:.*gate$"])).ignored == (
        "lm_head",
        "re:.*gate$",
    )
    skipped = {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "llm_int8_skip_modules": ["lm_head", "visual"],
    }
    assert quantization.read(skipped).ignored == ("lm_head", "visual")
    dynamic = {"quant_method": "gptq", "bits": 4, "dynamic": {"-:.*attn.*": {}, "+:.*": {"bits": 8}}}
    assert quantization.read(dynamic).ignored == ("re:.*attn.*",)


def test_double_quantization_and_blocks():
    table = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}
    assert quantization.read(table).double
    assert load("deepseek-r1").quantization.block == (128, 128)


def test_nothing_is_nothing():
    assert quantization.read(None) is None
    assert quantization.read({}) is None
    assert load("llama-70b").quantization is None


def test_an_unknown_dialect_is_named():
    with pytest.raises(ModelUnreadable, match="sorcery"):
        quantization.read({"quant_method": "sorcery"})


@pytest.mark.sampled(7)
@pytest.mark.parametrize("name", sorted(quantization.READERS))
@settings(max_examples=30, deadline=None, derandomize=True)
@given(values=st.data())
def test_any_table_is_read_or_refused(name, values):
    fields = ["bits", "group_size", "config_groups", "ignore", "weight_block_size", "quantization", "dynamic",
              "global_quant_config", "load_in_4bit", "zero_point", "format"]  # fmt: skip
    leaf = st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.floats()
    wild = leaf | st.lists(leaf, max_size=3) | st.dictionaries(st.text(max_size=6), leaf, max_size=3)
    table = values.draw(st.dictionaries(st.sampled_from(fields), wild, max_size=4))
    try:
        quantization.read({**table, "quant_method": name})
    except MemserveError as error:
        assert str(error)


@pytest.mark.parametrize("table", [
    {"quant_method": "gptq", "bits": "four"},
    {"quant_method": "gptq", "bits": 4, "group_size": []},
    {"quant_method": "awq", "bits": True},
    {"quant_method": "fp8", "weight_block_size": [128, 0]},
    {"quant_method": "compressed-tensors", "config_groups": {"g": {"weights": {"num_bits": "x"}}}},
])  # fmt: skip
def test_figures_that_are_none_are_refused(table):
    with pytest.raises(ModelUnreadable, match="malformed"):
        quantization.read(table)
