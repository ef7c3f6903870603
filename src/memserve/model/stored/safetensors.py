"""Safetensors headers across a folder's shards, and the weights that packed tensors stand for."""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from memserve.errors import ModelUnreadable
from memserve.model.config import read_json
from memserve.model.spec import Quantization

INDEX = "model.safetensors.index.json"
LONGEST_HEADER = 100_000_000
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "F4": 4, "C64": 64,
    "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One stored tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Numbers as stored; packed ones count once for each container."""
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return self.elements * BITS.get(self.dtype, 8) // 8


def _broken(path: Path, why: str) -> NoReturn:
    raise ModelUnreadable(f"{path}: {why}", path=str(path), hint="download the file again")


def header(path: Path) -> dict[str, Tensor]:
    """The tensors of one file; refuses a file that is cut short."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            if len(first) < 8:
                _broken(path, "is truncated: no safetensors header")
            (length,) = struct.unpack("<Q", first)
            if length > LONGEST_HEADER:
                _broken(path, "is no safetensors file: its header claims to be larger than 100 MB")
            if 8 + length > size:
                _broken(path, f"is truncated: {size} bytes hold no header of {length}")
            raw = json.loads(file.read(length))
    except OSError as error:
        _broken(path, f"cannot be read: {error.strerror}")
    except (ValueError, RecursionError):
        _broken(path, "has a header that is no JSON")
    return _tensors(path, raw, size - 8 - length)


def _tensors(path: Path, raw: object, room: int) -> dict[str, Tensor]:
    if not isinstance(raw, dict):
        _broken(path, "has a header that is no JSON object")
    found = {}
    for name, about in raw.items():
        if name == "__metadata__":
            continue
        try:
            start, end = about["data_offsets"]
            found[name] = Tensor(str(about["dtype"]), tuple(int(size) for size in about["shape"]))
        except (KeyError, TypeError, ValueError):
            _broken(path, f"describes tensor {name[:60]!r} badly")
        if not 0 <= start <= end or end > room:
            _broken(path, f"is truncated: tensor {name[:60]!r} ends at byte {end} of {room}")
    return found


def shards(folder: Path) -> list[Path]:
    """The weight files of a folder, by its index where it has one."""
    index = folder / INDEX
    if index.is_file():
        table = read_json(index).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise ModelUnreadable(f"{index}: has no weight_map", path=str(index), field="weight_map")
        return [folder / str(name) for name in dict.fromkeys(table.values())]
    return sorted(folder.glob("*.safetensors"))


def tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's shards; empty where there are none."""
    found: dict[str, Tensor] = {}
    for path in shards(folder):
        if not path.is_file():
            _broken(path, "is missing, though the index names it")
        found.update(header(path))
    return found


def by_dtype(found: Mapping[str, Tensor]) -> tuple[tuple[str, int], ...]:
    """Bytes of each stored dtype, the largest first."""
    sums: dict[str, int] = {}
    for tensor in found.values():
        sums[tensor.dtype] = sums.get(tensor.dtype, 0) + tensor.bytes
    return tuple(sorted(sums.items(), key=lambda item: -item[1]))


def settings(folder: Path) -> dict[str, Any]:
    """A quantization that is told beside config.json: ModelOpt's and ModelSlim's files."""
    for name, method in (("hf_quant_config.json", "modelopt"), ("quant_model_description.json", "modelslim")):
        path = folder / name
        if path.is_file():
            return {**read_json(path), "quant_method": method}
    return {}


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
