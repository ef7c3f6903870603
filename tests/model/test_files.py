"""Safetensors headers, GGUF files and folders."""

import json
import struct

import pytest

from memserve.errors import InvalidInput, ModelUnreadable
from memserve.model import load
from memserve.model.stored import headers
from memserve.plan import best

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
}  # fmt: skip
SIZES = {"F32": 4, "BF16": 2, "F16": 2, "I32": 4, "U8": 1, "F8_E4M3": 1}


def elements(shape):
    count = 1
    for side in shape:
        count *= side
    return count


def write_shard(path, tensors, *, cut=0):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape) in tensors.items():
        size = elements(shape) * SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    whole = struct.pack("<Q", len(text)) + text + bytes(offset)
    path.write_bytes(whole[: len(whole) - cut])


def llama_tensors(dtype="BF16"):
    found = {"model.embed_tokens.weight": (dtype, (256, 64)), "model.norm.weight": (dtype, (64,))}
    for layer in range(2):
        at = f"model.layers.{layer}"
        found |= {
            f"{at}.self_attn.q_proj.weight": (dtype, (64, 64)),
            f"{at}.self_attn.k_proj.weight": (dtype, (32, 64)),
            f"{at}.self_attn.v_proj.weight": (dtype, (32, 64)),
            f"{at}.self_attn.o_proj.weight": (dtype, (64, 64)),
            f"{at}.mlp.gate_proj.weight": (dtype, (128, 64)), f"{at}.mlp.up_proj.weight": (dtype, (128, 64)),
            f"{at}.mlp.down_proj.weight": (dtype, (64, 128)), f"{at}.input_layernorm.weight": (dtype, (64,)),
            f"{at}.post_attention_layernorm.weight": (dtype, (64,)),
        }  # fmt: skip
    return {**found, "lm_head.weight": (dtype, (256, 64))}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    tensors = llama_tensors()
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, inside in halves.items():
        write_shard(tmp_path / file, {name: tensors[name] for name in inside})
    table = {name: file for file, inside in halves.items() for name in inside}
    index = {"metadata": {"total_size": 1}, "weight_map": table}
    (tmp_path / headers.INDEX).write_text(json.dumps(index))
    return tmp_path


def test_shards_by_their_index(folder):
    found = headers.tensors(folder)
    assert sum(tensor.elements for tensor in found.values()) == load(folder).parameters
    assert load(folder).stored == (("BF16", 2 * load(folder).parameters),)


def test_each_tensor_has_its_own_dtype(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    tensors = {**llama_tensors(), "model.norm.weight": ("F32", (64,))}
    write_shard(tmp_path / "model.safetensors", tensors)
    assert dict(load(tmp_path).stored)["F32"] == 256


@pytest.mark.parametrize("cut", [1, 1000, 60_000])
def test_a_truncated_shard(folder, cut):
    write_shard(folder / "b.safetensors", llama_tensors(), cut=cut)
    with pytest.raises(ModelUnreadable, match="truncated") as caught:
        load(folder)
    assert str(caught.value.path).endswith("b.safetensors")


def test_a_missing_shard(folder):
    (folder / "b.safetensors").unlink()
    with pytest.raises(ModelUnreadable, match="missing"):
        load(folder)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x01", struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 2) + b"[]",
     struct.pack("<Q", 2) + b"{{",
     struct.pack("<Q", 22) + b'{"a": {"dtype": "F32"}}'],
)  # fmt: skip
def test_files_that_are_no_safetensors(tmp_path, raw):
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(ModelUnreadable, match=r"model\.safetensors"):
        headers.header(path)


def test_an_unknown_family_is_counted_from_its_tensors(folder):
    want = load(folder).parameters
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "brand_new"}))
    spec = load(folder)
    assert spec.parameters == want
    assert len(spec.blocks) == 2
    assert "brand_new" in spec.notes[0]
    assert spec.blocks[0].mixer.kv_heads == 2


PACKED = {
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 64},
             {"qweight": ("I32", (8, 128)), "qzeros": ("I32", (1, 16)), "scales": ("F16", (1, 128)),
              "g_idx": ("I32", (64,))}),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 64},
            {"qweight": ("I32", (64, 16)), "qzeros": ("I32", (1, 16)), "scales": ("F16", (1, 128))}),
    "compressed": ({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"g": {
        "targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 32}}}},
        {"weight_packed": ("I32", (128, 8)), "weight_scale": ("BF16", (128, 2)),
         "weight_shape": ("I32", (2,))}),
    "fp8": ({"quant_method": "fp8", "weight_block_size": [128, 128]},
            {"weight": ("F8_E4M3", (128, 64)), "weight_scale_inv": ("F32", (1, 1))}),
    "nf4": ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            {"weight": ("U8", (4096, 1)), "weight.absmax": ("F32", (128,)),
             "weight.quant_map": ("F32", (16,)),
             "weight.quant_state.bitsandbytes__nf4": ("U8", (80,))}),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(PACKED))
def test_packed_weights_are_unpacked(tmp_path, name):
    table, parts = PACKED[name]
    tensors = llama_tensors()
    plain = sum(elements(shape) for _, shape in tensors.values())
    del tensors["model.layers.0.mlp.gate_proj.weight"]
    tensors |= {f"model.layers.0.mlp.gate_proj.{part}": about for part, about in parts.items()}
    write_shard(tmp_path / "model.safetensors", tensors)
    config = {**CONFIG, "model_type": "brand_new", "quantization_config": table}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(tmp_path).parameters == plain


def test_an_index_without_its_files_leaves_an_estimate(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "model_type": "brand_new"}))
    index = {"metadata": {"total_size": 12345}, "weight_map": {"a": "gone.safetensors"}}
    (tmp_path / headers.INDEX).write_text(json.dumps(index))
    assert not load(tmp_path).exact


def test_quantization_told_beside_the_config(folder):
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "NVFP4"}}))
    assert load(folder).quantization.method == "nvfp4"


def test_pooling_of_an_embedder(folder):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    assert load(folder).pooling == "mean"


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def write_gguf(path, *, cut=0, magic=b"GGUF", tokens=256):
    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.name") + struct.pack("<I", 8) + text("Tiny"),
        text("general.file_type") + struct.pack("<II", 4, 15),
        *(
            text(f"llama.{name}") + struct.pack("<II", 4, value)
            for name, value in {
                "block_count": 2, "embedding_length": 64, "feed_forward_length": 128, "context_length": 512,
                "attention.head_count": 4, "attention.head_count_kv": 2,
            }.items()
        ),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, tokens) + text("ab") * tokens,
    ]  # fmt: skip
    sizes = {"token_embd.weight": (64, 256), "output_norm.weight": (64,)}
    for layer in range(2):
        at = f"blk.{layer}"
        sizes |= {
            f"{at}.attn_q.weight": (64, 64), f"{at}.attn_k.weight": (64, 32), f"{at}.attn_v.weight": (64, 32),
            f"{at}.attn_output.weight": (64, 64), f"{at}.ffn_gate.weight": (64, 128),
            f"{at}.ffn_up.weight": (64, 128),
            f"{at}.ffn_down.weight": (128, 64), f"{at}.attn_norm.weight": (64,),
            f"{at}.ffn_norm.weight": (64,),
        }  # fmt: skip
    entries = [
        text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        + struct.pack("<IQ", 0 if len(shape) == 1 else 8, 0)
        for name, shape in sizes.items()
    ]  # fmt: skip
    raw = magic + struct.pack("<IQQ", 3, len(entries), len(pairs)) + b"".join([*pairs, *entries])
    path.write_bytes(raw[: len(raw) - cut])


def test_gguf(tmp_path):
    path = tmp_path / "tiny-Q4_K_M.gguf"
    write_gguf(path)
    spec = load(path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "tie_word_embeddings": True}))
    assert spec.parameters == load(tmp_path / "config.json").parameters
    assert spec.quantization.method == "gguf-q4_k_m"
    assert 8.5 <= spec.quantization.bits < 9
    assert (spec.id, spec.max_context, spec.vocabulary, len(spec.blocks)) == ("Tiny", 512, 256, 2)
    assert (spec.blocks[0].mixer.heads, spec.blocks[0].mixer.kv_heads) == (4, 2)
    assert spec.tied_embeddings


def test_a_folder_with_a_gguf(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    assert load(tmp_path).id == "Tiny"


def test_a_long_vocabulary_is_passed_over(tmp_path):
    write_gguf(tmp_path / "tiny.gguf", tokens=300_000)
    assert headers.read(tmp_path / "tiny.gguf").metadata["tokenizer.ggml.tokens"] == 300_000


@pytest.mark.parametrize("cut", [1, 30, 500, 4000])
def test_a_truncated_gguf(tmp_path, cut):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, cut=cut)
    with pytest.raises(ModelUnreadable, match="truncated"):
        load(path)


@pytest.mark.parametrize("raw", [b"", b"GGUF", b"ABCD" * 20, b"GGUF" + b"\xff" * 64])
def test_files_that_are_no_gguf(tmp_path, raw):
    path = tmp_path / "x.gguf"
    path.write_bytes(raw)
    with pytest.raises(ModelUnreadable, match=r"x\.gguf"):
        load(path)


@pytest.mark.parametrize("name", ["~nobody-of-that-name", "~" + "x" * 300, "~nobody/config.json"])
def test_a_home_that_nobody_has_is_an_unknown_model(name):
    with pytest.raises(InvalidInput):
        load(name)


def test_a_plan_for_a_gguf_file_starts_that_file(tmp_path):
    write_gguf(tmp_path / "tiny-Q4_K_M.gguf")
    plan = best(tmp_path, "cpu", backend="llamacpp", context=256)
    assert plan.command[plan.command.index("--model") + 1] == str(tmp_path / "tiny-Q4_K_M.gguf")
    assert plan.command[plan.command.index("--interrupt_requests") + 1] == "false"
