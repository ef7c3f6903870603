"""Stored tensors as the weights they stand for: packed numbers unpacked, scales and buffers left out."""

import re
from collections.abc import Mapping

from memserve.model.spec import Quantization
from memserve.model.stored.safetensors import Tensor

# Helpers of a quantization, buffers, and layers for multi-token prediction.
_LEFT_OUT = re.compile(
    r"(\.|^)(qzeros|scales|g_idx|weight_scale\w*|weight_zero_point|weight_shape|weight_g_idx|input_scale|"
    r"input_zero_point|output_scale|[kv]_scale|absmax|quant_map|nested_\w+|quant_state\S*|SCB|weight_format|"
    r"\w+_scales|\w+_scale_inv|weight_global_scale|input_global_scale|weight_offset|quant_bias|deq_scale|"
    r"inv_freq|position_ids|masked_bias|rotary_emb\S*|num_batches_tracked|running_mean|running_var)$|"
    r"weight\.(absmax|quant_map|nested_\w+|quant_state\S*)$|^mtp\.|\.e_score_correction_bias$"
)
_CAUSAL_MASK = re.compile(r"\.(attn|attention)\.bias$")
_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def unpacked(stored: Mapping[str, Tensor], quantization: Quantization | None,
             layers: int | None) -> dict[str, tuple[int, ...]]:  # fmt: skip
    """Names and shapes as the unquantized model would have them."""
    bits = int(quantization.bits) if quantization and quantization.bits <= 8 else 16
    found = {}
    for name, tensor in stored.items():
        place = _LAYER.search(name)
        beyond = place is not None and layers is not None and int(place[1]) >= layers
        if beyond or _LEFT_OUT.search(name) or (_CAUSAL_MASK.search(name) and len(tensor.shape) == 4):
            continue
        new, shape = _whole(name, tensor, bits, stored)
        found[new] = shape
    return found


def _whole(name: str, tensor: Tensor, bits: int, stored: Mapping[str, Tensor]) -> tuple[str, tuple[int, ...]]:
    shape = tensor.shape
    if name.endswith(".qweight") and tensor.dtype == "I32" and len(shape) == 2:
        base = name.removesuffix(".qweight")
        scales = stored.get(f"{base}.scales")
        many = 32 // bits
        if scales is not None and scales.shape[-1] != shape[-1]:  # AWQ packs the outputs, GPTQ the inputs
            return f"{base}.weight", (shape[1] * many, shape[0])
        return f"{base}.weight", (shape[1], shape[0] * many)
    if name.endswith(".weight_packed"):
        many = (32 if tensor.dtype == "I32" else 8) // bits
        return name.removesuffix("_packed"), (*shape[:-1], shape[-1] * many)
    if name.endswith("_blocks") and tensor.dtype == "U8":
        return name.removesuffix("_blocks"), (*shape[:-2], shape[-2] * shape[-1] * 2)
    if name.endswith(".weight") and tensor.dtype == "U8" and bits == 4:
        whole = shape[0] * 2 if shape[-1] == 1 else shape[-1] * 2
        return name, (whole,) if shape[-1] == 1 else (*shape[:-1], whole)
    return name, shape
