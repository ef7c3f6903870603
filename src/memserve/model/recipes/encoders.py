"""Encoders, and encoders with a decoder, from layouts that are written down as data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from memserve.model.config import Config
from memserve.model.recipes import heads, layouts, tensors
from memserve.model.recipes.index import Recipe
from memserve.model.recipes.inventory import Inventory


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
    generates = heads.task_of(architecture) in heads.GENERATIVE
    encodes = bool(row.get("encoder_only")) and not generates
    # A class of the repository's own (Jina's bert, say) may have other layers under a known name.
    return whole._replace(encoder_only=encodes, exact="auto_map" not in config.given)


RECIPES: dict[str, Recipe] = dict.fromkeys(layouts.table(), encoder)
