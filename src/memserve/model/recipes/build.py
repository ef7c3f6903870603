"""From a config to layers and weights: by a recipe, by the stored tensors, or by an estimate."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from memserve.model.config import LARGEST, MOST_LAYERS, Config
from memserve.model.recipes import index
from memserve.model.recipes.modules import Inventory
from memserve.model.spec import Quantization

if TYPE_CHECKING:
    from memserve.model.stored.safetensors import Tensor

Headers: TypeAlias = "Callable[[], Mapping[str, Tensor]]"

REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
LIMITS = (
    (re.compile(r"^(num_|n_)?(\w+_)?(layers|layer|depth|depths|blocks)$"), MOST_LAYERS),
    (re.compile(r"^(num|n)_(\w+_)?experts$"), 1 << 14),
)
LONGEST_LIST = 1 << 14
LETTERS_FIELD = "sliding_window_pattern"
"""A number, or a letter for each layer: `LLLG`."""


def inventory(config: Config, architecture: str, headers: Headers | None = None,
              stored_as: Quantization | None = None) -> tuple[Inventory, str]:  # fmt: skip
    """Layers and weights of the class a config names, and a note on how they were found.

    `headers` reads the names and shapes of the stored tensors; asked only where no recipe knows the family.
    """
    recipe, own = index.recipe(config.kind), None
    if recipe is not None:
        check(config)
        own = recipe(config, architecture)
        if own.exact:
            return own, ""
    from memserve.model.recipes import from_files, generic

    kind = config.kind[:60]
    stored = headers() if headers else None
    if stored:
        found = from_files.from_tensors(stored, config.given, stored_as)
        return found, f"{kind} has no recipe here: counted from the stored tensors"
    _sane(config)
    note = f"{kind} has no recipe here: its parameters are estimated from the fields of its config"
    return own or generic.inventory(config, architecture), note


def check(config: Config) -> None:
    """Refuse a config that does not say how large the model is, or says nonsense."""
    if config.subs:
        flat = config.has("hidden_size") and config.has("num_hidden_layers")
        if not flat and not any(isinstance(config.given.get(name), dict) for name in config.subs):
            config.bad(next(iter(config.subs)), "is missing")
        for name in config.subs:
            if config.has(name):
                _sane(config.sub(name))
    elif config.known:
        for field in REQUIRED:
            target = config.aliases.get(field, field)
            if config.fields.get(target) is None:
                continue
            if not config.has(field):
                config.bad(target, "is missing")
            if isinstance(config.fields[target], int) and not config.size(field):
                config.bad(target, "must not be zero")
    _sane(config)


def _sane(config: Config) -> None:
    """Every field whose class default is a whole number is a number within reason, or null."""
    for field, default in config.fields.items():
        value = config.given.get(field)
        letters = field == LETTERS_FIELD and isinstance(value, str)
        if value is None or isinstance(default, bool) or not isinstance(default, int) or letters:
            continue
        if isinstance(value, (bool, str, dict)):
            config.bad(field, f"must be a whole number, not {type(value).__name__}")
        if isinstance(value, list) and len(value) > LONGEST_LIST:
            config.bad(field, "is too long")
        limit = next((most for pattern, most in LIMITS if pattern.search(field)), LARGEST)
        if isinstance(value, (int, float)) and not -limit <= value <= limit:
            config.bad(field, f"is out of range: {str(value)[:20]}")
