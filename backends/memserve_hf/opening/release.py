"""Gives freed memory back to the device and to the system."""

from __future__ import annotations

import ctypes
import gc

import torch


def release() -> None:
    """Collect what is unreachable and empty the caches that would keep it."""
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
