"""YAML in block style from plain values; every string is quoted as JSON, which YAML reads the same."""

import json
import re
from collections.abc import Iterator
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""What YAML 1.1 takes for something else than a name."""
_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF)}


def dump(value: Any) -> str:
    """A document."""
    return "\n".join(_lines(value, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    pairs = value.items() if isinstance(value, dict) else (("-", part) for part in value)
    for name, part in pairs:
        head = "-" if isinstance(value, list) else f"{_name(name)}:"
        if not isinstance(part, (dict, list)) or not part:
            yield f"{indent}{head} {_scalar(part)}"
        elif head == "-":
            first, *rest = _lines(part, indent + "  ")
            yield f"{indent}- {first.lstrip()}"
            yield from rest
        else:
            yield f"{indent}{head}"
            yield from _lines(part, indent + "  ")


def _name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and name.lower() not in _WORDS else _scalar(name)


def _scalar(value: Any) -> str:
    """JSON, without the few characters that JSON allows and YAML does not."""
    return json.dumps(value, ensure_ascii=False).translate(_CONTROLS)
