"""Random models stored in 4 bits, packed by hand in the layouts that checkpoints use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

GROUP = 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def awq(folder: Path) -> Path:
    """AutoAWQ's gemm layout: int32 words of eight inputs' weights, zero points and scales by group."""
    import torch

    def packed(name: str, weight: Any) -> dict[str, Any]:
        by_input = weight.t()
        groups = by_input.reshape(-1, GROUP, by_input.shape[1])
        low, high = groups.amin(1), groups.amax(1)
        scales = ((high - low) / 15).clamp(min=1e-5)
        zeros = (-low / scales).round().clamp(0, 15)
        words = ((groups / scales[:, None]).round() + zeros[:, None]).clamp(0, 15).reshape(by_input.shape)
        return {f"{name}.qweight": _awq_words(words), f"{name}.qzeros": _awq_words(zeros),
                f"{name}.scales": scales.to(torch.float16)}  # fmt: skip

    config = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}
    return _rewritten(folder, packed, config)


def _awq_words(values: Any) -> Any:
    import torch

    words = torch.zeros(values.shape[0], values.shape[1] // 8, dtype=torch.int32)
    for place, source in enumerate(AWQ_ORDER):
        words |= values[:, source::8].int() << (4 * place)
    return words


def gptq(folder: Path) -> Path:
    """GPTQ's layout: int32 words of eight inputs' weights, zero points less one."""
    import torch

    def packed(name: str, weight: Any) -> dict[str, Any]:
        by_input = weight.t()
        groups = by_input.reshape(-1, GROUP, by_input.shape[1])
        scales = (groups.abs().amax(1) / 7).clamp(min=1e-5)
        words = ((groups / scales[:, None]).round() + 8).clamp(0, 15).reshape(by_input.shape)
        zeros = torch.full((len(groups), by_input.shape[1] // 8), 0x77777777, dtype=torch.int32)
        return {f"{name}.qweight": _gptq_words(words), f"{name}.qzeros": zeros,
                f"{name}.scales": scales.to(torch.float16),
                f"{name}.g_idx": torch.arange(len(by_input), dtype=torch.int32) // GROUP}  # fmt: skip

    config = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": True, "desc_act": False,
              "checkpoint_format": "gptq", "lm_head": False}  # fmt: skip
    return _rewritten(folder, packed, config)


def _gptq_words(values: Any) -> Any:
    import torch

    words = torch.zeros(values.shape[0] // 8, values.shape[1], dtype=torch.int32)
    for place in range(8):
        words |= values[place::8].int() << (4 * place)
    return words


def compressed(folder: Path) -> Path:
    """compressed-tensors' pack-quantized: symmetric, by group."""
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    def packed(name: str, weight: Any) -> dict[str, Any]:
        groups = weight.reshape(weight.shape[0], -1, GROUP)
        scales = (groups.abs().amax(-1) / 7).clamp(min=1e-5)
        words = (groups / scales[..., None]).round().clamp(-8, 7).reshape(weight.shape).to(torch.int8)
        return {f"{name}.weight_packed": pack_to_int32(words, 4), f"{name}.weight_scale": scales,
                f"{name}.weight_shape": torch.tensor(weight.shape)}  # fmt: skip

    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP}
    config = {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }  # fmt: skip
    return _rewritten(folder, packed, config)


def unpacked(folder: Path) -> Path:
    """What `gptq` or `awq` packed, as plain bfloat16 weights again."""
    import torch
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "config.json").read_text())
    values = {"awq": _awq_values, "gptq": _gptq_values}[config.pop("quantization_config")["quant_method"]]
    file, tensors = folder / "model.safetensors", {}
    packed = load_file(str(file))
    for name, tensor in packed.items():
        stem, _, part = name.rpartition(".")
        if part == "qweight":
            scales = packed[f"{stem}.scales"].float().repeat_interleave(GROUP, 0)
            weight = values(tensor, packed[f"{stem}.qzeros"]) * scales
            tensors[f"{stem}.weight"] = weight.t().contiguous().to(torch.bfloat16)
        elif part not in ("qzeros", "scales", "g_idx"):
            tensors[name] = tensor
    save_file(tensors, str(file), metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _awq_values(words: Any, zeros: Any) -> Any:
    return (_awq_numbers(words) - _awq_numbers(zeros).repeat_interleave(GROUP, 0)).float()


def _awq_numbers(words: Any) -> Any:
    import torch

    found = torch.zeros(words.shape[0], words.shape[1] * 8, dtype=torch.int32)
    for place, source in enumerate(AWQ_ORDER):
        found[:, source::8] = (words >> (4 * place)) & 15
    return found


def _gptq_values(words: Any, _: Any) -> Any:
    import torch

    found = torch.zeros(words.shape[0] * 8, words.shape[1], dtype=torch.int32)
    for place in range(8):
        found[place::8] = (words >> (4 * place)) & 15
    return (found - 8).float()


def _rewritten(folder: Path, packed: Any, quantization: dict[str, Any]) -> Path:
    from safetensors.torch import load_file, save_file

    file, tensors = folder / "model.safetensors", {}
    for name, weight in load_file(str(file)).items():
        linear = name.endswith("proj.weight")
        tensors.update(packed(name.removesuffix(".weight"), weight.float()) if linear else {name: weight})
    save_file(tensors, str(file), metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    return folder
