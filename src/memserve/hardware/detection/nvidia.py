"""NVIDIA cards: through NVML, or else nvidia-smi."""

import csv
import re
from pathlib import Path
from typing import Any

from memserve.hardware.detection.seen import MIB, Report, Seen, ToolFailed, have, output, unreadable

_DRIVER_MARKS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg", "/dev/nvhost-gpu")
_FIELDS = ("index", "uuid", "name", "memory.total", "memory.free")
_NEWER_FIELDS = ("compute_cap", "mig.mode.current")
_SLICE = re.compile(r"MIG ([0-9]+)(?:c\.[0-9]+)?g\.([0-9]+)gb")
_LISTED_GPU = re.compile(r"^GPU ([0-9]+): (.+) \(UUID: (GPU-[^)]+)\)")
_LISTED_SLICE = re.compile(
    r"^\s+MIG (?:[0-9]+c\.)?([0-9]+)g\.([0-9]+)gb\S*\s+Device\s+[0-9]+: \(UUID: (MIG-[^)]+)\)"
)


def look(nvml: Any = None) -> Report:
    """The NVIDIA cards of this machine; a driver that does not answer is told as a note."""
    notes: list[str] = []
    module = nvml if nvml is not None else _nvml()
    if module is not None:
        try:
            return Report(from_nvml(module))
        except module.NVMLError as error:
            notes.append(f"NVML did not answer: {error}")
    if have("nvidia-smi"):
        try:
            return Report(from_smi())
        except ToolFailed as error:
            notes.append(str(error))
    return Report((), tuple(notes))


def _nvml() -> Any:
    """The NVML binding, looked for only where a driver shows itself: loading it takes time."""
    if not any(Path(mark).exists() for mark in _DRIVER_MARKS):
        return None
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def from_nvml(nvml: Any) -> tuple[Seen, ...]:
    """Every card that NVML shows, MIG slices in place of the card that is cut up."""
    nvml.nvmlInit()
    try:
        found: list[Seen] = []
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            card = _nvml_card(nvml, handle, index)
            found += _nvml_slices(nvml, handle, card) or [card]
        return tuple(found)
    finally:
        nvml.nvmlShutdown()


def _nvml_card(nvml: Any, handle: Any, index: int) -> Seen:
    total, free = _nvml_memory(nvml, handle)
    capability = _ask(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    name, uuid = nvml.nvmlDeviceGetName(handle), _ask(nvml, nvml.nvmlDeviceGetUUID, handle)
    return Seen(index, _text(name), "nvidia", total, free, tuple(capability) if capability else None,
                uuid=_text(uuid or ""))  # fmt: skip


def _nvml_memory(nvml: Any, handle: Any) -> tuple[int | None, int | None]:
    info = _ask(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)  # refused on unified memory (GB10)
    return (int(info.total), int(info.free)) if info is not None else (None, None)


def _nvml_slices(nvml: Any, handle: Any, card: Seen) -> list[Seen]:
    mode = _ask(nvml, nvml.nvmlDeviceGetMigMode, handle)
    if not mode or not mode[0]:
        return []
    slices: list[Seen] = []
    for number in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if part is not None:
            slices.append(_nvml_slice(nvml, part, card))
    return slices


def _nvml_slice(nvml: Any, part: Any, card: Seen) -> Seen:
    total, free = _nvml_memory(nvml, part)
    name = _text(_ask(nvml, nvml.nvmlDeviceGetName, part) or "")
    cut = _SLICE.search(name)
    gigabytes = round((total or 0) / 1e9)
    return Seen(card.index, card.name, "nvidia", total, free, card.capability,
                uuid=_text(_ask(nvml, nvml.nvmlDeviceGetUUID, part) or ""),
                slice=(int(cut[1]), int(cut[2])) if cut else (1, gigabytes))  # fmt: skip


def _ask(nvml: Any, function: Any, *words: Any) -> Any:
    """None where this card or driver does not support the question."""
    try:
        return function(*words)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


def energy(nvml: Any = None) -> float | None:
    """Joules that all cards took since their driver was loaded; None where one does not tell it."""
    module = nvml if nvml is not None else _nvml()
    if module is None:
        return None
    try:
        module.nvmlInit()
        count = module.nvmlDeviceGetCount()
        handles = [module.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        return float(sum(module.nvmlDeviceGetTotalEnergyConsumption(one) for one in handles) / 1e3)
    except module.NVMLError:
        return None
    finally:
        _ask(module, module.nvmlShutdown)


def from_smi() -> tuple[Seen, ...]:
    """Every card that nvidia-smi lists."""
    try:
        rows = _query(*_FIELDS, *_NEWER_FIELDS)
    except ToolFailed as error:
        if "not a valid field" not in str(error):
            raise
        rows = _query(*_FIELDS)  # drivers before 470
    cards = [_smi_card(row) for row in rows]
    cut = {row[0] for row in rows if row[-1] == "Enabled"}
    if not cut:
        return tuple(cards)
    slices = _listed_slices(output("nvidia-smi", "-L"), cards)
    return tuple(seen for card in cards for seen in (slices.get(card.index) or [card]))


def _query(*fields: str) -> list[list[str]]:
    words = f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"
    text = output("nvidia-smi", *words)
    if "No devices were found" in text or not text.strip():
        return []
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
    if any(len(row) != len(fields) or not row[0].isdigit() for row in rows):
        raise unreadable("nvidia-smi", text)
    return rows


def _smi_card(row: list[str]) -> Seen:
    index, uuid, name, total, free, *newer = row
    version = re.fullmatch(r"([0-9]+)\.([0-9]+)", newer[0]) if newer else None
    return Seen(int(index), name, "nvidia", _mebibytes(total), _mebibytes(free),
                (int(version[1]), int(version[2])) if version else None, uuid=uuid)  # fmt: skip


def _mebibytes(word: str) -> int | None:
    """`[N/A]` and `[Not Supported]` stand where memory is shared with the system."""
    return int(word) * MIB if word.isdigit() else None


def _listed_slices(text: str, cards: list[Seen]) -> dict[int, list[Seen]]:
    """The MIG lines of `nvidia-smi -L`; a slice's memory is taken from its profile's name."""
    by_index = {card.index: card for card in cards}
    found: dict[int, list[Seen]] = {}
    owner: Seen | None = None
    for line in text.splitlines():
        if head := _LISTED_GPU.match(line):
            owner = by_index.get(int(head[1]))
        elif (part := _LISTED_SLICE.match(line)) and owner is not None:
            found.setdefault(owner.index, []).append(_listed_slice(owner, part))
    return found


def _listed_slice(owner: Seen, part: re.Match[str]) -> Seen:
    compute, gigabytes = int(part[1]), int(part[2])
    return Seen(owner.index, owner.name, "nvidia", None, None, owner.capability, uuid=part[3],
                slice=(compute, gigabytes))  # fmt: skip
