"""From a config to layers and weights: by a recipe, by the stored tensors, or by an estimate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from memserve.errors import ModelUnreadable
from memserve.model.config import LARGEST, MOST_LAYERS
from memserve.model.recipes import heads, index

if TYPE_CHECKING:
    from pathlib import Path

    from memserve.model.config import Config
    from memserve.model.recipes.inventory import Inventory
    from memserve.model.spec import Quantization

REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
LIMITS = (
    (re.compile(r"^(num_|n_)?(\w+_)?(layers|layer|depth|depths|blocks)$"), MOST_LAYERS),
    (re.compile(r"^(num|n)_(\w+_)?experts$"), 1 << 14),
)
LONGEST_LIST = 1 << 14
LETTERS_FIELD = "sliding_window_pattern"
"""A number, or a letter for each layer: `LLLG`."""
# To become recipes; until then the reduced constructors count them.
STILL = frozenset(("qwen2_vl", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe",
                   "llava", "llava_next", "mistral3", "internvl", "llama4", "t5", "whisper"))  # fmt: skip
OTHER_CLASSES: dict[str, tuple[str, dict[str, object]]] = {}


def inventory(
    config: Config, architecture: str, folder: Path | None = None, stored_as: Quantization | None = None
) -> tuple[Inventory, str]:
    """Layers and weights of the class a config names, and a note on how they were found."""
    recipe = index.recipe(config.kind)
    if recipe is not None:
        check(config)
        return recipe(config, architecture), ""
    if config.kind in STILL:
        check(config)
        return _constructed(config, architecture), ""
    from memserve.model.recipes import from_files, generic

    kind = config.kind[:60]
    found = from_files.from_tensors(folder, config.given, stored_as) if folder else None
    if found is not None:
        return found, f"{kind} has no recipe here: counted from the stored tensors"
    _sane(config)
    note = f"{kind} has no recipe here: its parameters are estimated from the fields of its config"
    return generic.inventory(config, architecture), note


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


def _constructed(config: Config, architecture: str) -> Inventory:
    from memserve.model.recipes import tensors
    from memserve.model.standin import archive, library

    name, changes = OTHER_CLASSES.get(architecture, (architecture, {}))
    if not archive.home(name, config.kind):
        name = library.default_class(config.kind)
    if not name:
        config.bad("architectures", f"names no class that {config.kind} has")
    try:
        built = library.build(config.given, config.kind, name, **changes)
        found = tensors.inventory(built.shapes, built.aliases, built.config)
    except ModelUnreadable:
        raise
    except Exception as error:  # the constructors raise whatever an odd value leads to
        why = f"{type(error).__name__}: {str(error)[:120]}"
        raise ModelUnreadable(
            f"{config.path}: no {name} can be built from this config ({why})", path=config.path
        ) from error
    masked = config.kind in archive.index()["autos"]["AutoModelForMaskedLM"] or config.kind == "dpr"
    encoder = masked and not found.encoder and heads.task_of(name) not in heads.GENERATIVE
    return _with_recipe(config, found._replace(encoder_only=encoder))


def _with_recipe(config: Config, found: Inventory) -> Inventory:
    """The text part by its own recipe where the two agree to the weight: its splits are surer."""
    if "text_config" not in config.subs:
        return found
    text = config.sub("text_config")
    recipe = index.recipe(text.kind)
    if recipe is None:
        return found
    try:
        own = recipe(text, "ForCausalLM")
    except ModelUnreadable:
        return found
    if _count(own) != _count(found):
        return found
    return own._replace(towers=found.towers)


def _count(part: Inventory) -> int:
    weights = [*part.stem, *part.top, *(w for block in part.blocks for w in block.weights)]
    return sum(weight.parameters for weight in weights)
