"""Where a model's shapes come from: a file, a folder, the catalogue, the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from memserve.errors import ModelUnreadable, UnknownName
from memserve.model import reader
from memserve.model.config import read_json

if TYPE_CHECKING:
    import os

    from memserve.model.spec import ModelSpec


def find(name_or_path: str | os.PathLike[str]) -> ModelSpec:
    """The model behind a name or a path."""
    path = Path(name_or_path)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return reader.from_config(read_json(path), path=str(path), name=path.parent.name or str(path))
    raise UnknownName(f"unknown model {str(name_or_path)!r}")


def _folder(folder: Path) -> ModelSpec:
    config = folder / "config.json"
    if not config.is_file():
        raise ModelUnreadable(f"{folder}: holds no config.json", path=str(folder), field="config.json")
    return reader.from_config(read_json(config), path=str(config), name=str(folder))
