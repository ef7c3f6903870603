"""Who answers, as an answer cache and a price table need to know it."""

from collections.abc import Mapping
from typing import Any

_FIELDS = ("backend", "engine", "model")


def identity(generator: Any) -> dict[str, str]:
    """What a generator says of itself (`identity`: backend, address, model, revision, ...; never a key)."""
    capabilities = getattr(generator, "capabilities", None)
    known = {name: getattr(capabilities, name, None) for name in _FIELDS}
    own = getattr(generator, "identity", None)
    if isinstance(own, Mapping):
        known.update(own)
    return {str(name): str(value) for name, value in known.items() if value is not None}
