"""Where a model runs and in which dtype."""

from __future__ import annotations

import ctypes
import gc
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from memserve.errors import InvalidInput, Unsupported
from memserve.missing import need, release_of
from memserve_hf.options import Options

_BF16_CAPABILITY = (8, 0)
_FLASH_CAPABILITY = (8, 0)
_HALF = ("float16", "bfloat16")


@dataclass(frozen=True)
class Place:
    """One device, the dtype of activations and the attention kernel."""

    device: str
    dtype: str
    attention: str
    described: str

    @property
    def kind(self) -> str:
        """cpu, cuda, npu, ..."""
        return self.device.partition(":")[0]


def choose(options: Options, checkpoint_dtype: str | None) -> Place:
    """Decide device, dtype and attention for a checkpoint; refuses what the device cannot do."""
    torch = need("hf", "torch")
    device = options.device or _default_device(torch)
    kind = device.partition(":")[0]
    _check_device(torch, kind, device)
    dtype = options.dtype or _default_dtype(torch, kind, device, checkpoint_dtype)
    if dtype == "bfloat16" and kind == "cuda" and _capability(torch, device) < _BF16_CAPABILITY:
        raise Unsupported(
            "hf", "dtype='bfloat16'", f"{_describe(torch, device)} has no bfloat16", hint="use float16"
        )
    attention = options.attention or _default_attention(torch, kind, device, dtype)
    return Place(device, dtype, attention, _describe(torch, device))


def _default_device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda:0"
    if find_spec("torch_npu") is not None:
        need("hf", "torch_npu")
        if torch.npu.is_available():
            return "npu:0"
    return "cpu"


def _check_device(torch: Any, kind: str, device: str) -> None:
    if kind == "cpu":
        return
    if kind == "npu":
        need("hf", "torch_npu")
    module = getattr(torch, kind, None)
    if module is None or not hasattr(module, "is_available"):
        raise InvalidInput(f"option device={device!r} is no device that torch knows")
    if not module.is_available():
        raise Unsupported("hf", f"device={device!r}", "torch sees no such device here")


def _default_dtype(torch: Any, kind: str, device: str, stored: str | None) -> str:
    """float32 on a CPU, where it is exact and half precision is not faster; else the checkpoint's own."""
    if kind == "cpu":
        return "float32"
    if stored == "bfloat16" and kind == "cuda" and _capability(torch, device) < _BF16_CAPABILITY:
        return "float16"
    return stored if stored in _HALF else "float16"


def _default_attention(torch: Any, kind: str, device: str, dtype: str) -> str:
    flash = release_of("flash-attn") and kind == "cuda" and dtype in _HALF
    if flash and _capability(torch, device) >= _FLASH_CAPABILITY:
        return "flash_attention_2"
    return "sdpa"


def _capability(torch: Any, device: str) -> tuple[int, int]:
    major, minor = torch.cuda.get_device_capability(device)
    return int(major), int(minor)


def _describe(torch: Any, device: str) -> str:
    kind = device.partition(":")[0]
    if kind == "cuda":
        return str(torch.cuda.get_device_name(device))
    if kind == "npu":
        return str(torch.npu.get_device_name(device))
    return device


def free_bytes(device: str) -> int | None:
    """Free memory where the weights would go; None where nobody says."""
    torch = need("hf", "torch")
    kind = device.partition(":")[0]
    if kind in ("cuda", "npu"):
        return int(getattr(torch, kind).mem_get_info(device)[0])
    return host_free_bytes() if kind == "cpu" else None


def host_free_bytes() -> int | None:
    """MemAvailable of this machine, within the limit of its container."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123
            rows = dict(line.split(":", 1) for line in lines)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def release() -> None:
    """Collect what is unreachable and empty the caches that would keep it."""
    torch = need("hf", "torch")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif hasattr(torch, "npu"):
        torch.npu.empty_cache()
    _trim_heap()


def _trim_heap() -> None:
    """Hand free pages of glibc's heap back, where there is a glibc."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return
