"""Writes a request in the chat shape."""

import json
from collections.abc import Mapping
from typing import Any

from memserve.errors import InvalidInput
from memserve.protocol import Prompt

_HOLE = "$"
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def messages(prompt: Prompt) -> list[Any]:
    """A prompt as chat messages; a string is one user message."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)  # type: ignore[arg-type]


def encode(payload: Mapping[str, Any]) -> bytes:
    """A JSON body, or InvalidInput where a setting holds what JSON cannot."""
    try:
        return _ENCODER.encode(payload).encode()
    except (TypeError, ValueError) as broken:
        raise InvalidInput(f"the request cannot be written as JSON: {broken}") from None


def fill(template: Any, value: Any) -> Any:
    """A template of a dialect's data with its hole "$" filled: how this dialect spells a setting."""
    if template == _HOLE:
        return value
    if isinstance(template, dict):
        return {name: fill(inner, value) for name, inner in template.items()}
    return template
