"""What a vendor's tool said of a device, which devices an engine would see, and the cards that they are."""

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from memserve.errors import InvalidInput
from memserve.hardware import catalogue
from memserve.hardware.machine import GIB, Card, Vendor

MIB = 1024**2


@dataclass(frozen=True)
class Seen:
    """One device as its driver shows it. Bytes; None: the driver did not say."""

    index: int
    name: str
    vendor: Vendor
    total: int | None = None
    free: int | None = None
    capability: tuple[int, int] | None = None
    soc: str | None = None
    uuid: str = ""
    framework_total: int | None = None
    """What torch itself reports, where it was asked."""
    slice: tuple[int, int] | None = None
    """MIG: compute slices of seven, and gigabytes of the profile 1g.10gb."""


@dataclass(frozen=True)
class Report:
    """What one vendor's tools found, and what is worth telling."""

    devices: tuple[Seen, ...] = ()
    notes: tuple[str, ...] = ()


LIMIT_SECONDS = 10.0
_NAME_IT = "name the machine instead, for instance --gpus 4xV100"


class ToolFailed(Exception):
    """The tool is there and said that it cannot work; `str` is its own word, on one line."""


def have(tool: str) -> bool:
    """Whether the tool is on PATH."""
    return shutil.which(tool) is not None


def output(*words: str, limit: float = LIMIT_SECONDS) -> str:
    """What the tool printed; `ToolFailed` when it ended badly or not at all."""
    import subprocess

    try:
        done = subprocess.run(
            words, capture_output=True, timeout=limit, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise ToolFailed(f"{words[0]} did not answer within {limit:g} s") from None
    except OSError as error:
        raise ToolFailed(f"{words[0]} could not be run: {error.strerror or error}") from None
    text = done.stdout.decode("utf-8", errors="replace")
    if done.returncode:
        told = (done.stderr.decode("utf-8", errors="replace") or text).strip()
        raise ToolFailed(f"{words[0]} failed with code {done.returncode}: {_line(told)}")
    return text


def unreadable(tool: str, text: str) -> InvalidInput:
    """The error for an answer that nobody can read."""
    return InvalidInput(f"{tool} gave an answer that cannot be read: {_line(text)!r}", hint=_NAME_IT)


def _line(text: str) -> str:
    return " ".join(text.split())[:120] or "nothing"


SAME_SIZE = 0.02
"""Driver releases differ by this much about one card; more is another card, or another ECC setting."""
_LOST = {"nvidia": (0.9978, 320 * 1024**2), "ascend": (0.9525, 0)}
"""What a framework sees of the driver's total, by vendor, as data/cards.json says in its legend."""
_A3_DIE = ("ascend910", 64 * GIB)


def card_of(seen: Seen) -> tuple[Card, tuple[str, ...]]:
    """The card behind a device, with the memory that this one really has, and what was assumed."""
    known = _known(seen)
    if known is None:
        near = _nearest(seen)
        name = " ".join(seen.name.split()) or near.name
        fitted = replace(
            _sized(near, seen.total)[0], name=name, memory_measured=False,
            capability=seen.capability or near.capability, soc=seen.soc or near.soc,
        )  # fmt: skip
        return _framework(fitted, seen), (
            f"{name} is not in the catalogue: rates are those of {near.name}, the nearest",
        )
    if seen.slice is not None:
        return catalogue.cut(known, *seen.slice, seen.total), ()
    card, notes = _sized(known, seen.total)
    return _framework(card, seen), notes


def _known(seen: Seen) -> Card | None:
    name, size = _A3_DIE
    if seen.name.lower() == name and seen.total == size:
        return catalogue.card("A3")  # npu-smi prints no more than Ascend910 for it
    if not catalogue.knows(seen.name):
        return None
    found = catalogue.card(seen.name)
    if seen.total is None or seen.slice is not None or _near(found, seen.total):
        return found
    other_size = re.compile(re.escape(catalogue.key(seen.name)) + "[0-9]+(gb)?")
    kin = [card for card in catalogue.cards() if other_size.fullmatch(catalogue.key(card.name))]
    return next((card for card in kin if _near(card, seen.total)), found)


def _near(card: Card, total: int) -> bool:
    return abs(total - card.driver_memory) <= SAME_SIZE * card.driver_memory


def _framework(card: Card, seen: Seen) -> Card:
    if seen.framework_total is None:
        return card
    return replace(card, memory=seen.framework_total, memory_measured=True)


def _sized(card: Card, total: int | None) -> tuple[Card, tuple[str, ...]]:
    """The card with the driver's own total; the framework's follows when that differs."""
    if total is None:
        return card, ()
    if _near(card, total):
        return replace(card, driver_memory=total), ()
    share, fixed = _LOST.get(card.vendor, (1.0, 0))
    own = replace(card, driver_memory=total, memory=int(total * share) - fixed, memory_measured=False)
    shown, usual = total / GIB, card.driver_memory / GIB
    return own, (f"the driver shows {shown:.1f} GiB where a {card.name} usually has {usual:.1f}",)


def _nearest(seen: Seen) -> Card:
    """By SoC, then capability, then memory."""
    cards = [card for card in catalogue.cards() if card.vendor == seen.vendor]
    sm = None if seen.capability is None else seen.capability[0] * 10 + seen.capability[1]

    def distance(card: Card) -> tuple[bool, int, float]:
        other_soc = seen.soc is not None and card.soc != seen.soc
        generations = 0 if sm is None else abs((card.sm or 0) - sm)
        return other_soc, generations, abs(math.log((seen.total or 16 * GIB) / card.driver_memory))

    return min(cards, key=distance)


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
