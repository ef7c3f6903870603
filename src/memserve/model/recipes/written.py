"""A body from a layout that is written down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.model.recipes import census, heads, layouts

if TYPE_CHECKING:
    from memserve.model.config import Config
    from memserve.model.recipes.anatomy import Anatomy


class Fields:
    """A config whose fields are attributes, as the sorting of named tensors reads it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.model_type = config.kind
        self.is_encoder_decoder = config.flag("is_encoder_decoder")

    def __getattr__(self, name: str) -> Any:
        found = self.config.raw(name)
        if found is None:
            raise AttributeError(name)
        return found

    def get_text_config(self, **_named: Any) -> Fields:
        """The same: towers have been cut off."""
        return self


def body(config: Config, architecture: str) -> Anatomy:
    """Layers and weights of a family with a layout."""
    found = layouts.named(config, architecture)
    whole = census.anatomy(found.shapes, found.aliases, Fields(config))
    generates = heads.kind_of(architecture) in heads.GENERATIVE
    return whole._replace(encoder_only=bool(layouts.layout(config.kind).get("encoder_only")) and not generates)
