"""What a model is: config.json -> ModelSpec, a catalogue, checkpoints, the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memserve import lazy

if TYPE_CHECKING:
    from os import PathLike

    from memserve.model.spec import ModelSpec as ModelSpec

__all__ = ["ModelSpec", "load"]
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(__name__, {"ModelSpec": "spec"})


def load(name_or_path: str | PathLike[str]) -> ModelSpec:
    """A catalogue name or alias, a hub id, a folder or a config.json -> its shapes."""
    from memserve.model.source import find

    return find(name_or_path)
