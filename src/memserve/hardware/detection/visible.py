"""Which devices an engine started from here would see: CUDA_VISIBLE_DEVICES and its kin."""

import re
from collections.abc import Mapping, Sequence

from memserve.hardware.detection.seen import Seen

VARIABLES = {
    "nvidia": ("CUDA_VISIBLE_DEVICES",),
    "ascend": ("ASCEND_RT_VISIBLE_DEVICES",),
    "amd": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
}


def narrow(devices: Sequence[Seen], vendor: str,
           env: Mapping[str, str]) -> tuple[tuple[Seen, ...], tuple[str, ...]]:  # fmt: skip
    """The devices that the variables leave, in their order, and a note per variable that hid some."""
    left, notes = tuple(devices), []
    for variable in _variables(vendor, env):
        before, left = left, _chosen(left, env[variable])
        if len(left) < len(before):
            shown = env[variable].strip()[:60]
            notes.append(f"{variable}={shown!r} leaves {len(left)} of {len(before)} cards")
    return left, tuple(notes)


def _variables(vendor: str, env: Mapping[str, str]) -> list[str]:
    found = [name for name in VARIABLES.get(vendor, ()) if name in env]
    if vendor == "amd" and "HIP_VISIBLE_DEVICES" not in env and "CUDA_VISIBLE_DEVICES" in env:
        found.append("CUDA_VISIBLE_DEVICES")  # HIP reads it as its own
    return found


def _chosen(devices: tuple[Seen, ...], asked: str) -> tuple[Seen, ...]:
    """As the drivers do: the list ends at the first entry that names no device, or one named before."""
    chosen: list[Seen] = []
    for word in _words(asked):
        device = _device(devices, word)
        if device is None or device in chosen:
            break
        chosen.append(device)
    return tuple(chosen)


def _words(asked: str) -> list[str]:
    words: list[str] = []
    for word in asked.split(","):
        span = re.fullmatch(r"\s*([0-9]{1,3})\s*-\s*([0-9]{1,3})\s*", word)
        words += [str(n) for n in range(int(span[1]), int(span[2]) + 1)] if span else [word.strip()]
    return words


def _device(devices: tuple[Seen, ...], word: str) -> Seen | None:
    if re.fullmatch(r"[0-9]{1,4}", word):
        return devices[int(word)] if int(word) < len(devices) else None
    named = [device for device in devices if len(word) > 4 and device.uuid.lower().startswith(word.lower())]
    return named[0] if len(named) == 1 else None
