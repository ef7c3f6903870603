"""Quantized weights and adapters give what transformers gives with them."""

from __future__ import annotations

import packed_hf
import pytest
from extras import need
from tiny_hf import causal, greedy

import memserve
from memserve import errors
from memserve.missing import install_line

pytestmark = pytest.mark.engine("hf")
PROMPTS = [[7, 8, 9, 10], [30] * 12, [5]]


def answers(folder, **options):
    with memserve.generator(str(folder), backend="hf", dtype="float32", **options) as generator:
        return [list(one.token_ids) for one in generator.generate(PROMPTS, max_tokens=8)]


@pytest.mark.parametrize("method", ["nf4", "fp4", "int8"])
def test_bitsandbytes_while_loading(tmp_path, method):
    need("bitsandbytes", "hf")
    folder = causal(tmp_path, hidden_size=64, head_dim=16)
    assert all(len(one) for one in answers(folder, quantization=method))


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize(("pack", "library"), [("awq", "gptqmodel"), ("compressed", "compressed_tensors")])
def test_stored_in_four_bits(tmp_path, pack, library):
    need(library, "gptq")
    folder = causal(tmp_path, hidden_size=128, intermediate_size=256, head_dim=32)
    getattr(packed_hf, pack)(folder)
    assert answers(folder) == greedy(folder, PROMPTS, 8)


def test_a_missing_library_is_named_with_its_install_line(tmp_path, monkeypatch):
    folder = packed_hf.awq(causal(tmp_path, hidden_size=128, intermediate_size=256, head_dim=32))
    monkeypatch.setattr("memserve_hf.opening.checkpoint.release_of", lambda package: None)
    with pytest.raises(errors.BackendMissing, match="gptqmodel") as caught:
        answers(folder)
    assert caught.value.install == install_line("hf,gptq")


def test_a_quantization_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(errors.InvalidInput, match="not stored as gptq"):
        answers(causal(tmp_path), quantization="gptq")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's own
def test_an_adapter_changes_the_answer_as_peft_does(tmp_path):
    peft = need("peft", "hf")
    import torch
    from transformers import AutoModelForCausalLM

    folder = causal(tmp_path / "base")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    torch.manual_seed(5)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data.normal_(std=0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    made = answers(folder, adapter=str(tmp_path / "adapter"))
    assert made != greedy(folder, PROMPTS, 8)
    assert made == greedy(tmp_path / "merged", PROMPTS, 8)


def test_a_broken_adapter_is_named(tmp_path):
    folder = causal(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    with pytest.raises(errors.ModelUnreadable, match="adapter"):
        answers(folder, adapter=str(tmp_path / "adapter"))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:Found missing adapter keys")  # peft's own
@pytest.mark.parametrize(("layers", "said"), [(2, "is missing"), (6, "no place in the model")])
def test_an_adapter_of_another_model_is_refused(tmp_path, layers, said):
    """peft itself goes on, with an adapter that does nothing or half of what it did."""
    import torch
    from safetensors.torch import save_file

    folder, adapter = causal(tmp_path), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}'
    )
    name = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    shapes = {"A": (2, 32), "B": (32, 2)}
    save_file(
        {name.format(i, half): torch.ones(shape) for i in range(layers) for half, shape in shapes.items()},
        str(adapter / "adapter_model.safetensors"),
    )
    with pytest.raises(errors.ModelUnreadable, match=said) as caught:
        answers(folder, adapter=str(adapter))
    assert "lora_" in caught.value.field
    (adapter / "adapter_model.safetensors").write_bytes(b"garbage")
    with pytest.raises(errors.ModelUnreadable, match="cannot be read"):
        answers(folder, adapter=str(adapter))
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(errors.ModelUnreadable, match="pickled"):
        answers(folder, adapter=str(adapter))


def test_an_attention_kernel_that_nobody_knows_is_refused(tmp_path):
    with pytest.raises(errors.Unsupported, match="turbo"):
        answers(causal(tmp_path), attention="turbo")
