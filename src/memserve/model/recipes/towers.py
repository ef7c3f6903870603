"""Models that see or hear: the text part by its own recipe, towers and projectors from layouts."""

from dataclasses import replace

from memserve.model.config import Config
from memserve.model.recipes import build, generic, heads, index, layouts, tensor_roles
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
    """Whether the output matrix is the token table: the whole config, its text part or either says."""
    by = layouts.layout(config.kind).get("tied_by", "whole")
    asked = {"whole": (config,), "text": (text,), "either": (config, text), "none": ()}[by]
    return any(one.flag("tie_word_embeddings") for one in asked)


def seeing(config: Config, architecture: str) -> Inventory:
    """A text part with its towers."""
    seen = [config.sub(field).kind for field in config.subs if field != "text_config"]
    if not all(map(layouts.known, seen)):
        return generic.inventory(config, architecture)
    row = layouts.layout(config.kind)
    if row.get("over_usual"):  # what is left out is this family's usual text part, not the text kind's
        config.given["text_config"] = {**config.subs["text_config"][-1], **config.table("text_config")}
    text = config.sub("text_config")
    text.given["tie_word_embeddings"] = tied(config, text)
    recipe = index.recipe(text.kind)
    words = recipe(text, "Model") if recipe else build.inventory(text, "Model")[0]
    whole = heads.with_head(text, words, architecture)
    if architecture and row.get("words_only") == heads.task_of(architecture):
        return whole
    return whole.adding(towers=towers(config, architecture))


RECIPES: dict[str, Recipe] = dict.fromkeys(layouts.table(), seeing)
