"""Models that see or hear: the text part by its own recipe, towers and projectors from layouts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from memserve.model.recipes import build, heads, index, layouts, tensor_roles

if TYPE_CHECKING:
    from memserve.model.config import Config
    from memserve.model.recipes.index import Recipe
    from memserve.model.recipes.inventory import Inventory
    from memserve.model.recipes.modules import Weights


def towers(config: Config, architecture: str) -> Weights:
    """Encoders of images and sounds, and what brings their output to the text part's width."""
    bare = bool(architecture) and not heads.task_of(architecture)
    base = "" if bare else layouts.layout(config.kind).get("base", "model")
    return tuple(
        replace(tensor_roles.weight(name, shape), part="projector" if "project" in name else "tower")
        for name, shape in layouts.below(config, base).items()
    )


def tied(config: Config, text: Config) -> bool:
    """Whether the output matrix is the token table: the whole config, its text part or either says so."""
    by = layouts.layout(config.kind).get("tied_by", "whole")
    asked = {"whole": (config,), "text": (text,), "either": (config, text)}[by]
    return any(one.flag("tie_word_embeddings") for one in asked)


def seeing(config: Config, architecture: str) -> Inventory:
    """A text part with its towers."""
    text = config.sub("text_config")
    text.given["tie_word_embeddings"] = tied(config, text)
    task = heads.task_of(architecture or "ForCausalLM") or "Model"
    recipe = index.recipe(text.kind)
    body = recipe(text, task) if recipe else build.inventory(text, task)[0]
    return body.adding(towers=towers(config, architecture))


RECIPES: dict[str, Recipe] = dict.fromkeys(layouts.table(), seeing)
