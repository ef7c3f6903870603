"""What a model calls its cache, as an argument and in its output."""

from inspect import signature
from typing import Any

NAMES = ("cache", "past_key_values", "cache_params")
"""transformers from 5.24; before it, and code of a model's repository; its Mamba models before 5.24."""


def cache_argument(model: Any) -> str | None:
    """The name of the argument; None for a model that keeps no cache."""
    known = signature(model.forward).parameters
    return next((name for name in NAMES if name in known), None)
