"""What a recipe hands back: the layers and weights of one model, before names and sources are added."""

from __future__ import annotations

from typing import NamedTuple

from memserve.model.recipes.modules import Weights
from memserve.model.spec import Block


class Inventory(NamedTuple):
    """The body of a model."""

    blocks: tuple[Block, ...]
    stem: Weights
    top: Weights
    towers: Weights = ()
    encoder: tuple[Block, ...] = ()
    hidden: int = 0
    intermediate: int = 0
    vocabulary: int = 0
    tied: bool = False
    rope_dim: int = 0
    encoder_only: bool = False
    exact: bool = True
    """False: estimated from the fields of a family that has no recipe."""
    head_width: int | None = None
    """Width the output matrix reads, where it is not `hidden`."""

    def adding(self, *, stem: Weights = (), top: Weights = (), towers: Weights = ()) -> Inventory:
        """The same body with more weights."""
        return self._replace(stem=(*self.stem, *stem), top=(*self.top, *top), towers=(*self.towers, *towers))
