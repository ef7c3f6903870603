"""Small models, their weights changed by hand, and transformers' own greedy answers to them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOME = Path(os.environ.get("MEMSERVE_ENGINES") or Path.home() / ".cache" / "memserve" / "engines")
TINY = HOME / "weights-1" / "tiny"


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(TINY, tmp_path / "tiny"))


@pytest.fixture
def greedy() -> Callable[..., list[list[int]]]:
    """transformers' answers in float32 from a folder, with weights replaced if need be."""

    def answers(
        folder: Path, prompts: Sequence[list[int]], count: int, weights: Any = None
    ) -> list[list[int]]:
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        if weights:
            model.load_state_dict(weights, strict=False)
        found = []
        for ids in prompts:
            told = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)
            found.append(told[0, len(ids) :].tolist())
        return found

    return answers


@pytest.fixture
def adapter(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A LoRA adapter of rank 4 for the tiny model, and the weights that merging it gives."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "adapter"
    folder.mkdir()
    weights, parts, merged = load_file(str(TINY / "model.safetensors")), {}, {}
    torch.manual_seed(5)
    for name in sorted(weights):
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            high, low = torch.randn(len(weights[name]), 4), torch.randn(4, weights[name].shape[1])
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            parts |= {f"{stem}.lora_A.weight": low * 0.3, f"{stem}.lora_B.weight": high * 0.3}
            merged[name] = weights[name].float() + (high * 0.3) @ (low * 0.3)
    save_file(parts, str(folder / "adapter_model.safetensors"))
    told = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"],
            "task_type": "CAUSAL_LM", "bias": "none"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return folder, merged
