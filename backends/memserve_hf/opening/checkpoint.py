"""A checkpoint's folder, proven whole and small enough before any weight is loaded; errors name the field."""

import json
import logging
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memserve.errors import DoesNotFit, InvalidInput, MemserveError, ModelUnreadable, UnknownName
from memserve.hardware.machine import GIB
from memserve.missing import missing, need, release_of
from memserve.model.spec import ModelSpec
from memserve.plan import Plan
from memserve_hf.opening.device import Place, free_bytes
from memserve_hf.options import Options


@dataclass(frozen=True)
class Checkpoint:
    """One folder that was looked through: its config, and the bytes of its weights by dtype."""

    folder: Path
    name: str
    config: dict[str, Any]
    stored: dict[str, int]
    """Bytes of the stored tensors by safetensors dtype (BF16, F32, I32, ...); empty for pickles."""

    @property
    def dtype(self) -> str | None:
        """The dtype that the config names, of the text part where there are several."""
        text = self.config.get("text_config") or {}
        named = (part.get(key) for part in (self.config, text) for key in ("dtype", "torch_dtype"))
        return next((str(dtype) for dtype in named if dtype), None)

    @property
    def bytes(self) -> int:
        """All weights as stored."""
        return sum(self.stored.values())


FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
MOST = 3
"""Parameters claimed for each one stored: tied weights may be claimed twice, a head may be left out."""
log = logging.getLogger("memserve.hf")


def prove(found: Checkpoint) -> None:
    """Refuse a config that lacks what makes a model, or tells of a far larger one than the files hold.

    transformers fills what is absent with its own defaults and what is not stored with random numbers, at
    full size: a config of another model would take all memory before anybody said so.
    """
    _known_dtype(found)
    spec, stored = _described(found), _stored(found)
    if spec is not None and stored and spec.parameters > MOST * stored:
        raise ModelUnreadable(
            f"{found.folder / 'config.json'} describes {spec.parameters:,} parameters, the weights beside it "
            f"are {stored:,}: they do not belong together",
            path=str(found.folder / "config.json"), field="hidden_size",
        )  # fmt: skip


def _known_dtype(found: Checkpoint) -> None:
    torch = need("hf", "torch")
    name = (found.dtype or "auto").removeprefix("torch.")
    if name != "auto" and not isinstance(getattr(torch, name, None), torch.dtype):
        path = str(found.folder / "config.json")
        raise ModelUnreadable(f"{path}: dtype {name!r} is none that torch knows", path=path, field="dtype")


def _described(found: Checkpoint) -> ModelSpec | None:
    """The model as memserve reads it; None for a family that only transformers, or its own code, knows."""
    from memserve.model import load

    try:
        spec = load(str(found.folder))
        return spec if spec.exact else None
    except ModelUnreadable as error:
        if error.field and "auto_map" not in found.config:
            raise
        log.debug("%s is left to transformers: %s", found.name, error)
    except MemserveError as error:
        log.debug("%s is left to transformers: %s", found.name, error)
    return None


def _stored(found: Checkpoint) -> int:
    """Numbers in the weight files; 0 where they are packed, quantized or pickled, and so say nothing."""
    if found.config.get("quantization_config") or not FLOATS.keys() >= found.stored.keys():
        return 0
    return sum(size // FLOATS[dtype] for dtype, size in found.stored.items())


_BITSANDBYTES = ("nf4", "fp4", "int8")
_NEEDED = {
    "gptq": ("gptqmodel", "optimum"), "awq": ("gptqmodel",), "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",),
}  # fmt: skip
_EXTRAS = dict.fromkeys(("gptq", "awq", "compressed-tensors"), "hf,gptq")


def stored(config: dict[str, Any]) -> str | None:
    """The `quant_method` that a config names, for the text part where there are several."""
    for part in (config, config.get("text_config") or {}):
        method = (part.get("quantization_config") or {}).get("quant_method")
        if method:
            return str(method)
    return None


def config_for(checkpoint: Checkpoint, options: Options, place: Place) -> dict[str, Any]:
    """Arguments of `from_pretrained`; refuses a quantization that the checkpoint contradicts."""
    method, asked = stored(checkpoint.config), options.quantization
    if method:
        _agree(method, asked, checkpoint)
        _installed(method)
        return {}
    if asked in (None, "none"):
        return {}
    if asked not in _BITSANDBYTES:
        raise InvalidInput(
            f"{checkpoint.name} is not stored as {asked}",
            hint=f"name a {asked} checkpoint, or quantization='nf4' to quantize while loading",
        )
    return {"quantization_config": _bitsandbytes(str(asked), place)}


def _agree(method: str, asked: str | None, checkpoint: Checkpoint) -> None:
    same = asked is None or asked == method or (method == "bitsandbytes" and asked in _BITSANDBYTES)
    if not same:
        raise InvalidInput(
            f"{checkpoint.name} is stored as {method}, not {asked}", hint="leave quantization out"
        )


def _installed(method: str) -> None:
    for package in _NEEDED.get(method, ()):
        if release_of(package) is None:
            raise missing("hf", package, _EXTRAS.get(method))
    if method in ("gptq", "awq"):
        # gptqmodel asks for two loading threads however few cores there are
        os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")


def _bitsandbytes(asked: str, place: Place) -> Any:
    _installed("bitsandbytes")
    transformers, torch = need("hf", "transformers"), need("hf", "torch")
    if asked == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=asked, bnb_4bit_compute_dtype=getattr(torch, place.dtype)
    )


_MAX_HEADER = 100 * 1024**2
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_SKIPPED = ("*.msgpack", "*.h5", "*.onnx", "*.gguf", "onnx/*", "openvino/*", "original/*", "*.tflite")


def find(model: str, options: Options) -> Checkpoint:
    """The checkpoint behind a folder or a hub id, checked."""
    path = Path(model).expanduser()
    folder = path if path.is_dir() else _download(model, options)
    if path.is_file():
        raise ModelUnreadable(f"{path} is a file; the hf backend reads a folder", path=str(path))
    found = inspect(folder, model, allow_pickle=options.allow_pickle)
    prove(found)
    return found


def inspect(folder: Path, name: str, *, allow_pickle: bool = False) -> Checkpoint:
    """Read config and headers; refuse what is missing, truncated or pickled."""
    config = read_json(folder / "config.json", required=True)
    if not isinstance(config.get("model_type"), str):
        path = str(folder / "config.json")
        raise ModelUnreadable(f"{path} names no model_type", path=path, field="model_type")
    read_json(folder / "generation_config.json")  # transformers would go on without a broken one
    stored: dict[str, int] = {}
    for file in _weight_files(folder, allow_pickle):
        for dtype, size in _tensors(file):
            stored[dtype] = stored.get(dtype, 0) + size
    return Checkpoint(folder, name, config, stored)


def read_json(path: Path, *, required: bool = False) -> dict[str, Any]:
    """A JSON object; an empty one where the file may be absent and is."""
    if not path.is_file():
        if required:
            raise ModelUnreadable(f"{path.parent} has no {path.name}: not a checkpoint", path=str(path))
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelUnreadable(f"{path} is not readable JSON: {error}", path=str(path)) from error
    if not isinstance(value, dict):
        raise ModelUnreadable(f"{path} holds {type(value).__name__}, not an object", path=str(path))
    return value


def _download(model: str, options: Options) -> Path:
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model:
        raise UnknownName(f"no folder {model}")
    hub = need("hf", "huggingface_hub")
    ignored = [*_SKIPPED, *(() if options.allow_pickle else _PICKLES)]
    try:
        return Path(hub.snapshot_download(model, revision=options.revision, ignore_patterns=ignored))
    except hub.errors.HFValidationError as error:
        raise InvalidInput(f"{model!r} is neither a folder nor a hub id") from error
    except (hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UnknownName(f"no folder and no reachable hub model {model!r}: {reason}") from error


def _weight_files(folder: Path, allow_pickle: bool) -> Iterator[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        yield from _shards(index)
        return
    if (folder / "model.safetensors").is_file():
        yield folder / "model.safetensors"
        return
    if any(folder.glob("pytorch_model*.bin")):
        if allow_pickle:
            return
        raise ModelUnreadable(
            f"{folder} holds pickled weights only, which can run code when loaded",
            path=str(folder / "pytorch_model.bin"),
            hint="convert them to safetensors, or pass allow_pickle=True if you trust the source",
        )
    raise ModelUnreadable(f"{folder} holds no weights (model.safetensors)", path=str(folder))


def _shards(index: Path) -> Iterator[Path]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelUnreadable(f"{index} has no weight_map", path=str(index), field="weight_map")
    for name in sorted(set(map(str, shards.values()))):
        path = index.parent / name
        if not path.is_file():
            raise ModelUnreadable(f"{index.name} names {name}, which is missing", path=str(path))
        yield path


def _tensors(path: Path) -> Iterator[tuple[str, int]]:
    """(dtype, bytes) of every tensor, after proving that the file holds them all."""
    header, start = _header(path)
    size, end = path.stat().st_size, 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        try:
            first, last = tensor["data_offsets"]
            yield str(tensor["dtype"]), int(last) - int(first)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelUnreadable(f"{path}: bad entry for {name}", path=str(path), field=name) from error
        end = max(end, int(last))
        if start + end > size:
            raise ModelUnreadable(
                f"{path} is truncated: {name} ends at byte {start + end:,} of {size:,}",
                path=str(path), field=name, hint="download it again",
            )  # fmt: skip


def _header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _MAX_HEADER
        if length >= _MAX_HEADER:
            raise ModelUnreadable(f"{path} is not a safetensors file", path=str(path), field="header")
        text = file.read(length)
    try:
        header = json.loads(text)
    except ValueError as error:
        raise ModelUnreadable(f"{path} has a broken header", path=str(path), field="header") from error
    if len(text) < length or not isinstance(header, dict):
        raise ModelUnreadable(f"{path} has a truncated header", path=str(path), field="header")
    return header, 8 + length


def identity(found: Checkpoint, options: Options, place: Place) -> dict[str, str]:
    """Name and value of everything that a cached answer depends on."""
    known = {
        "folder": str(found.folder.resolve()), "revision": options.revision, "dtype": place.dtype,
        "quantization": options.quantization or stored(found.config) or "none", "device": place.kind,
        "attention": place.attention, "adapter": options.adapter, "tokenizer": options.tokenizer,
        "pooling": options.pooling, "query_model": options.query_model,
    }  # fmt: skip
    return {name: value for name, value in known.items() if value}


_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_COMFORT = 0.7
"""Share of the free memory that weights may take before a smaller dtype is chosen."""
_QUANTIZED = {"nf4": 4.5 / 8, "fp4": 4.5 / 8, "int8": 1.05}
"""Bytes of a weight that is quantized while loading, its scales included."""


def refuse_too_large(found: Checkpoint, options: Options, place: Place) -> None:
    """Raise `DoesNotFit` if the weights alone exceed the free memory of the one device they go to."""
    free = free_bytes(place.device)
    if not options.check_memory or options.device_map is not None or free is None:
        return
    needed = weight_bytes(found, options, place)
    if needed <= free:
        return
    fitting = _plan_for(found)
    raise DoesNotFit(
        f"{found.name} needs {needed / GIB:.1f} GiB for its weights in "
        f"{options.quantization or place.dtype}; {place.described} has {free / GIB:.1f} GiB free",
        closest=fitting,
        hint=_advice(fitting),
    )


def settled(found: Checkpoint, options: Options, place: Place, stored: str | None) -> Place:
    """The place with the dtype that nobody chose: a CPU keeps half precision where float32 is too much."""
    half = place.kind == "cpu" and options.dtype is None and stored in ("float16", "bfloat16")
    free = free_bytes(place.device)
    if not half or free is None or weight_bytes(found, options, place) <= free * _COMFORT:
        return place
    return replace(place, dtype=str(stored))


def weight_bytes(found: Checkpoint, options: Options, place: Place) -> int:
    """What the stored tensors take once loaded; integers are packed weights and stay as they are."""
    each = _QUANTIZED.get(options.quantization or "", _BYTES[place.dtype])
    sizes = (size / FLOATS[dtype] * each if dtype in FLOATS else size for dtype, size in found.stored.items())
    return int(sum(sizes))


def _plan_for(found: Checkpoint) -> Plan | None:
    from memserve.plan import best

    try:
        return best(str(found.folder))
    except MemserveError:
        return None


def _advice(plan: Plan | None) -> str:
    if plan is None:
        return "try quantization='nf4', or find a machine: python -m memserve.plan MODEL --gpus any"
    return f"this fits here: backend {plan.backend}, quantization {plan.quantization}"
