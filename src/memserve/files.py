"""Small files, read without pathlib, whose import (urllib, ipaddress) costs more than a plan's tables."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

_FAR = 1 << 62
CALIBRATION, SPEED = "calibration.json", "speed.json"
"""The user's files of what `--calibrate` learnt of memory and of speed."""
STUMBLES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What code raises over a value of a shape that it does not expect."""


def text(path: str) -> str:
    """A text file's content."""
    with open(path, encoding="utf-8") as file:
        return file.read()


def beside(module: str, name: str) -> str:
    """The content of a file in the folder of the module whose `__file__` is given."""
    return text(os.path.join(os.path.dirname(module), name))


def table(module: str, name: str) -> Any:
    """The facts of a JSON file in the folder of the module whose `__file__` is given."""
    return json.loads(beside(module, name))


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of somebody else's JSON (`object_pairs_hook`); one that says a thing twice means neither."""
    found = dict(pairs)
    if len(found) != len(pairs):
        said = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in found if said.count(name) > 1)[:40]!r} stands there twice")
    return found


def parsed(words: str | bytes, *, constant: Callable[[str], Any] | None = None) -> Any:
    """The value of somebody else's JSON; whatever is wrong with it is a ValueError. `constant` takes NaN."""
    text = words if isinstance(words, str) else words.decode()
    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=constant)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def write(path: object, text: str) -> None:
    """The whole file or nothing of it, with its folder."""
    half, folder = f"{path}.new", os.path.dirname(str(path))
    try:
        os.makedirs(folder or ".", exist_ok=True)
        with open(half, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(half, str(path))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def names(folder: str) -> list[str]:
    """What a folder holds."""
    return os.listdir(folder)


def expanded(path: str) -> str:
    """A path whose `~` is the user's folder."""
    return os.path.expanduser(path)


def configured(name: str) -> str:
    """Where a file of the user's own settings lies: in MEMSERVE_CONFIG_DIR, else the configuration folder."""
    own = os.environ.get("MEMSERVE_CONFIG_DIR")
    return f"{own or expanded(os.environ.get('XDG_CONFIG_HOME') or '~/.config') + '/memserve'}/{name}"


def is_configured(name: str) -> bool:
    """Whether there is such a file; a folder that may not be read holds none."""
    return os.access(configured(name), os.F_OK)


def lies(path: str) -> bool:
    """Whether something lies at a path; what may not be looked at does, so that whoever opens it says why."""
    try:
        os.stat(expanded(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True
    return True


def lock(descriptor: int) -> bool:
    """Lock an open file as long as this process lives; False if another holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            here = os.lseek(descriptor, 0, os.SEEK_CUR)
            os.lseek(descriptor, _FAR, os.SEEK_SET)  # one byte far behind the end
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(descriptor, here, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
