"""Headers of safetensors and GGUF files: every tensor's dtype and shape, without its values."""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from memserve import files
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
            raw = files.parsed(file.read(length))
    except OSError as error:
        _broken(path, f"cannot be read: {error.strerror}")
    except ValueError:
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
            start, end = map(int, about["data_offsets"])
            found[name] = Tensor(str(about["dtype"]), tuple(int(size) for size in about["shape"]))
        except (KeyError, TypeError, ValueError, OverflowError):
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


MAGIC = b"GGUF"
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
MOST = 1 << 26
# Type: name, numbers in a block, bytes of a block (ggml.h).
TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
FILE_TYPES = {
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s",
    12: "q3_k_m", 13: "q3_k_l", 14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k",
    19: "iq2_xxs", 20: "iq2_xs", 21: "q2_k_s", 22: "iq3_xs", 23: "iq3_xxs", 24: "iq1_s", 25: "iq4_nl",
    26: "iq3_s", 27: "iq3_m", 28: "iq2_s", 29: "iq2_m", 30: "iq4_xs", 31: "iq1_m", 32: "bf16",
    36: "tq1_0", 37: "tq2_0", 38: "mxfp4",
}  # fmt: skip
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True)
class Entry:
    """One tensor: its shape as torch has it, and how it is stored."""

    shape: tuple[int, ...]
    kind: str
    bytes: int


@dataclass(frozen=True)
class Gguf:
    """A file's metadata and tensors."""

    metadata: dict[str, Any]
    tensors: dict[str, Entry]

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.bytes for entry in self.tensors.values())

    @property
    def quantization(self) -> str:
        """The kind of file, as `q4_k_m`."""
        return FILE_TYPES.get(self.metadata.get("general.file_type", -1), "unknown")


class _Reader:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.data = memoryview(file.read(1 << 20))
        self.file = file
        self.place = 0

    def broken(self, why: str) -> NoReturn:
        raise ModelUnreadable(f"{self.path}: {why}", path=str(self.path), hint="download the file again")

    def take(self, size: int) -> memoryview:
        if size > MOST:
            self.broken("is no GGUF file: it claims an entry of more than 64 MiB")
        if self.place + size > len(self.data):
            more = self.file.read(max(size, 1 << 22))
            self.data = memoryview(bytes(self.data[self.place :]) + more)
            self.place = 0
            if size > len(self.data):
                self.broken("is truncated")
        self.place += size
        return self.data[self.place - size : self.place]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def text(self) -> str:
        return bytes(self.take(self.number("Q"))).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            self.broken(f"is no GGUF file: value of unknown type {kind}")
        inner, count = self.number("I"), self.number("Q")
        if count > MOST:
            self.broken("is no GGUF file: it claims an array of more than 64 Mi entries")
        return self._array(inner, count)

    def _array(self, inner: int, count: int) -> Any:
        """Short arrays of numbers are kept, of any other their length."""
        if inner in SCALARS:
            size = struct.calcsize(f"<{SCALARS[inner]}")
            if count <= 4096:
                return list(struct.unpack(f"<{count}{SCALARS[inner]}", self.take(size * count)))
            for start in range(0, count, 1 << 20):
                self.take(size * min(1 << 20, count - start))
            return count
        for _ in range(count):
            if inner == STRING:
                self.take(self.number("Q"))
            else:
                self.value(inner)
        return count


def read(path: Path) -> Gguf:
    """One GGUF file, or all parts of a split one."""
    parts = _parts(path)
    first, *others = [_read_one(part) for part in parts]
    tensors = dict(first.tensors)
    for other in others:
        tensors.update(other.tensors)
    return Gguf(first.metadata, tensors)


def _parts(path: Path) -> list[Path]:
    split = _SHARD.search(path.name)
    if split is None:
        return [path]
    stem = path.name[: split.start()]
    return [path.with_name(f"{stem}-{part:05d}-of-{split[2]}.gguf") for part in range(1, int(split[2]) + 1)]


def _read_one(path: Path) -> Gguf:
    try:
        with path.open("rb") as file:
            reader = _Reader(path, file)
            if bytes(reader.take(4)) != MAGIC:
                reader.broken("is no GGUF file")
            version, tensors, pairs = reader.number("I"), reader.number("Q"), reader.number("Q")
            if version not in (2, 3) or tensors > MOST or pairs > MOST:
                reader.broken(f"is GGUF version {version}, which is not read here")
            metadata = {reader.text(): reader.value(reader.number("I")) for _ in range(pairs)}
            return Gguf(metadata, dict(_entry(reader) for _ in range(tensors)))
    except OSError as error:
        raise ModelUnreadable(f"{path}: cannot be read: {error.strerror}", path=str(path)) from error


def _entry(reader: _Reader) -> tuple[str, Entry]:
    name = reader.text()
    sizes = [reader.number("Q") for _ in range(min(reader.number("I"), 8))]
    kind = reader.number("I")
    reader.number("Q")
    label, block, size = TYPES.get(kind, (f"type {kind}", 1, 1))
    count = prod(sizes)
    return name, Entry(tuple(reversed(sizes)), label, -(-count // block) * size)
