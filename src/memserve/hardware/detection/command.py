"""Runs a vendor's tool with a time limit."""

import shutil

from memserve.errors import InvalidInput

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
