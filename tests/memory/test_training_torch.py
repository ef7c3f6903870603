"""What torch really keeps for the backward pass, beside our count of it."""

import pytest
from extras import need

from memserve.memory.training import Keeping, layer_bytes

pytestmark = [pytest.mark.engine("hf"), pytest.mark.slow]
TOKENS = 2 * 256


def saved_bytes(model, ids):
    """Bytes of the distinct tensors that autograd keeps, parameters left out."""
    import torch

    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    exists = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            exists[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, labels=ids, use_cache=False)
    return sum(size for size, _ in exists.values())


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mixtral"])
def test_saved_tensors(kind, tmp_path):
    torch = need("torch", "hf")
    transformers = need("transformers", "hf")
    from memserve import model as models

    shape = {"hidden_size": 256, "intermediate_size": 688, "num_attention_heads": 8, "num_key_value_heads": 4,
             "vocab_size": 64}  # fmt: skip
    own = {"qwen3": {"head_dim": 32}, "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2}}
    exists = []
    for layers in (2, 4):
        config = transformers.AutoConfig.for_model(
            kind, num_hidden_layers=layers, **shape, **own.get(kind, {})
        )
        network = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        network = network.to(torch.bfloat16).train()
        config.architectures = [type(network).__name__]
        config.save_pretrained(tmp_path)
        ids = torch.randint(0, 64, (2, TOKENS // 2))
        exists.append(saved_bytes(network, ids))
    measured = (exists[1] - exists[0]) / 2 / TOKENS
    spec = models.load(tmp_path)
    assert layer_bytes(spec, spec.blocks[0], Keeping(2)) == pytest.approx(measured, rel=0.02)
