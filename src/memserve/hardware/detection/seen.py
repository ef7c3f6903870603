"""What a vendor's tool, run with a time limit, said of a device, before the catalogue is asked."""

import shutil
from dataclasses import dataclass

from memserve.errors import InvalidInput
from memserve.hardware.machine import Vendor

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
