"""AMD cards: through amd-smi, or else rocm-smi; both print JSON."""

import json
from typing import Any

from memserve.hardware.detection.seen import MIB, Report, Seen, ToolFailed, have, output, unreadable

_UNITS = {"B": 1, "KB": 1024, "MB": MIB, "GB": 1024 * MIB, "KIB": 1024, "MIB": MIB, "GIB": 1024 * MIB}


def look() -> Report:
    """The AMD cards of this machine."""
    notes: list[str] = []
    for tool, read in (("amd-smi", _amd_smi), ("rocm-smi", _rocm_smi)):
        if have(tool):
            try:
                return Report(read(), tuple(notes))
            except ToolFailed as error:
                notes.append(str(error))
    return Report((), tuple(notes))


def _amd_smi() -> tuple[Seen, ...]:
    static = _entries("amd-smi", output("amd-smi", "static", "--asic", "--vram", "--json"))
    try:
        usage = _entries("amd-smi", output("amd-smi", "metric", "--mem-usage", "--json"))
    except ToolFailed:
        usage = []
    free = {entry.get("gpu"): _bytes(_at(entry, "mem_usage", "free_vram")) for entry in usage}
    return tuple(_amd_card(entry, free.get(entry.get("gpu"))) for entry in static)


def _entries(tool: str, text: str) -> list[dict[str, Any]]:
    """The list of cards: bare in older releases, under `gpu_data` in newer ones."""
    read = _json(tool, text)
    rows = read.get("gpu_data") if isinstance(read, dict) else read
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "gpu" in row for row in rows):
        raise unreadable(tool, text)
    return rows


def _amd_card(entry: dict[str, Any], free: int | None) -> Seen:
    name = _at(entry, "asic", "market_name") or "AMD card"
    return Seen(
        int(entry["gpu"]), str(name), "amd", _bytes(_at(entry, "vram", "size")), free,
        soc=_at(entry, "asic", "target_graphics_version"), uuid=str(_at(entry, "asic", "asic_serial") or ""),
    )  # fmt: skip


def _at(entry: Any, *path: str) -> Any:
    for step in path:
        entry = entry.get(step) if isinstance(entry, dict) else None
    return entry


def _bytes(size: Any) -> int | None:
    value, unit = _at(size, "value"), str(_at(size, "unit") or "MB").upper()
    number = value if value is not None else size
    return int(number) * _UNITS.get(unit, MIB) if isinstance(number, int | float) else None


def _rocm_smi() -> tuple[Seen, ...]:
    text = output("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json")
    read = _json("rocm-smi", text)
    if not isinstance(read, dict):
        raise unreadable("rocm-smi", text)
    cards = [(name, row) for name, row in read.items() if name.startswith("card") and isinstance(row, dict)]
    return tuple(_rocm_card(number, row) for number, (_, row) in enumerate(cards))


def _rocm_card(number: int, row: dict[str, Any]) -> Seen:
    lower = {str(field).lower(): str(value) for field, value in row.items()}
    total, used = (lower.get(f"vram total {word}memory (b)", "") for word in ("", "used "))
    size = int(total) if total.isdigit() else None
    return Seen(
        number, lower.get("card series") or lower.get("card model") or "AMD card", "amd", size,
        size - int(used) if size is not None and used.isdigit() else None, soc=lower.get("gfx version"),
    )  # fmt: skip


def _json(tool: str, text: str) -> Any:
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    try:
        return json.loads(text[min(starts) :] if starts else text)
    except ValueError:
        raise unreadable(tool, text) from None
