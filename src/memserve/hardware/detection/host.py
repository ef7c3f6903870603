"""This machine's CPU: cores, RAM, instruction sets; and the release of the accelerators' driver."""

import os
import platform
import re
import sys
from dataclasses import replace
from pathlib import Path

from memserve.hardware.catalogue import processor
from memserve.hardware.machine import GIB, Card, Machine

FILES = {
    "nvidia": "sys/module/nvidia/version",
    "amd": "sys/module/amdgpu/version",
    "ascend": "usr/local/Ascend/driver/version.info",
}
_RELEASE = re.compile(r"[0-9]+(?:\.[0-9A-Za-z]+)+")


def release(vendor: str, root: Path = Path("/")) -> str | None:
    """The driver's release; None where none is installed or nothing says."""
    if vendor not in FILES:
        return None
    try:
        found = _RELEASE.search((root / FILES[vendor]).read_text(encoding="ascii", errors="replace")[:4096])
    except OSError:
        return None
    return found[0] if found else None


def machine() -> Machine:
    """This host as a machine without accelerators."""
    ram = memory()
    sets = instruction_sets()
    notes = (
        f"{cores()} cores, {ram / GIB:.0f} GiB of RAM, {', '.join(sets) or 'no vector instructions known'}",
    )
    return Machine(_card(ram, sets), free_memory=(available() or ram,), host_memory=ram,
                   origin="detected", notes=notes)  # fmt: skip


def _card(ram: int, sets: tuple[str, ...]) -> Card:
    widest = next((name for name in ("amx", "avx512", "avx2", "asimd") if name in sets), "")
    return replace(processor(cores(), ram, widest), soc=platform.machine() or "unknown")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory(root: Path = Path("/")) -> int:
    """Bytes of RAM, or less where a container's limit is lower."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    limit = _control_group_limit(root)
    found = [size for size in (installed, limit) if size]
    return min(found, default=8 * GIB)


def _control_group_limit(root: Path) -> int | None:
    for path in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            word = (root / path).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if word.isdigit() and int(word) < 2**60:
            return int(word)
    return None


def available(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes of RAM that programs could still take; None where the system does not say."""
    try:
        lines = meminfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    words = fields.get("MemAvailable", "").split()
    return int(words[0]) * 1024 if words and words[0].isdigit() else None


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Of avx2, avx512, avx512_bf16, amx and asimd: those that this CPU has."""
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ("asimd",) if sys.platform == "darwin" and platform.machine() == "arm64" else ()
    flags = {flag for line in text.splitlines() if line.lower().startswith(("flags", "features"))
             for flag in line.partition(":")[2].split()}  # fmt: skip
    marks = {"avx2": "avx2", "avx512": "avx512f", "avx512_bf16": "avx512_bf16", "amx": "amx_tile",
             "asimd": "asimd"}  # fmt: skip
    return tuple(name for name, flag in marks.items() if flag in flags)
