"""Every answer on a family without a recipe says that its parameters are estimated."""

import json

import pytest

from memserve.plan import best, check

CONFIG = {
    "model_type": "nobody_knows", "architectures": ["NobodyForCausalLM"], "hidden_size": 4096,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "intermediate_size": 14336, "max_position_embeddings": 8192, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return str(tmp_path)


def test_the_plan_says_so(folder):
    plan = best(folder, gpus="1xH100")
    assert plan.to_dict()["model"]["exact"] is False
    assert "estimated" in " ".join(str(plan).splitlines()[:3])
    assert any("estimated" in reason for reason in plan.reasons)


def test_the_check_says_so(folder):
    checked = check(f"vllm serve {folder} --max-model-len 8192", gpus="1xH100")
    assert checked.to_dict()["model"]["exact"] is False
    assert any("estimated" in reason for reason in checked.reasons)


def test_a_known_family_is_exact():
    assert best("llama-3.1-8b", gpus="1xH100").to_dict()["model"]["exact"] is True
