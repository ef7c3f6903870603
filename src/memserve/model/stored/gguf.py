"""GGUF files: their metadata and the list of tensors, read without the values."""

import re
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from memserve.errors import ModelUnreadable

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
