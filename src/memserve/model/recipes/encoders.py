"""Encoders, encoder-decoders and towers, from layouts that are written down as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from memserve.model.config import Config
from memserve.model.recipes import generic, index, layouts, modules, tensors
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.modules import Inventory, Weights


class Fields:
    """A config whose fields are attributes, as the sorting of named tensors reads it."""

    def __init__(self, config: Config, facts: Mapping[str, Any]) -> None:
        self.config = config
        self.facts = facts
        self.model_type = config.kind
        self.is_encoder_decoder = False

    def __getattr__(self, name: str) -> Any:
        found = self.facts.get(name, self.config.raw(name))
        if found is None:
            raise AttributeError(name)
        return found

    def get_text_config(self, **_named: Any) -> Fields:
        """The words of a pair of encoders; else the same."""
        return Fields(self.config.sub("text_config"), {}) if "text_config" in self.config.subs else self


def _facts(config: Config, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the sorting needs to know and the config may leave to its class: rotation, windows."""
    found: dict[str, Any] = {"rope_parameters": {}} if row.get("rotary") else {}
    if "window" in row and not config.items("layer_types"):
        period = layouts.size(config, row["full_every"])
        kinds = ("full_attention", "sliding_attention")
        found["layer_types"] = [
            kinds[bool(index % period if period else 1)] for index in range(config.layers())
        ]
    if "window" in row:
        found["sliding_window"] = layouts.size(config, row["window"])
    return found


def encoder(config: Config, architecture: str) -> Inventory:
    """Layers and weights of a family with a layout."""
    row = layouts.layout(config.kind)
    found = layouts.named(config, architecture)
    halves = (any(half in name for name in found.shapes) for half in ("encoder.", "decoder."))
    both = config.flag("is_encoder_decoder") and all(halves)
    fields = Fields(config, _facts(config, row))
    fields.is_encoder_decoder = both
    whole = tensors.inventory(found.shapes, found.aliases, fields)
    generates = modules.task_of(architecture) in modules.GENERATIVE
    encodes = bool(row.get("encoder_only")) and not generates
    # A class of the repository's own (Jina's bert, say) may have other layers under a known name.
    return whole._replace(encoder_only=encodes, exact="auto_map" not in config.given)


def towers(config: Config, architecture: str) -> Weights:
    """Encoders of images and sounds, and what brings their output to the text part's width."""
    bare = bool(architecture) and not modules.task_of(architecture)
    base = "" if bare else layouts.layout(config.kind).get("base", "model")
    return tuple(
        replace(tensors.as_weight(name, shape), part="projector" if "project" in name else "tower")
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
    words = recipe(text, "Model") if recipe else index.inventory(text, "Model")[0]
    whole = modules.with_head(text, words, architecture)
    if architecture and row.get("words_only") == modules.task_of(architecture):
        return whole
    return whole.adding(towers=towers(config, architecture))


_SEEING = index.TOWERS["encoders"].split()
RECIPES: dict[str, Recipe] = {kind: seeing if kind in _SEEING else encoder for kind in layouts.table()}
