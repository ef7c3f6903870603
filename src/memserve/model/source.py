"""Where a model's shapes come from: a file, a folder, the catalogue, the hub."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from memserve.errors import InvalidInput, ModelUnreadable, UnknownName
from memserve.model import catalogue, reader
from memserve.model.config import read_json

if TYPE_CHECKING:
    from memserve.model.spec import ModelSpec

LONGEST_NAME = 4096


def find(name_or_path: str | os.PathLike[str]) -> ModelSpec:
    """The model behind a name or a path."""
    text = os.fspath(name_or_path)
    if not isinstance(text, str) or not text.strip() or len(text) > LONGEST_NAME or "\0" in text:
        raise InvalidInput("a model is a name, a hub id, a folder or a config.json")
    path = Path(text)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return reader.from_config(read_json(path), path=str(path), name=path.parent.name or str(path))
    known = _known(text)
    if known is not None:
        return known
    near = catalogue.suggestions(text)
    meant = f": did you mean {', '.join(near)}?" if near else ""
    raise UnknownName(f"unknown model {text[:80]!r}{meant}", suggestions=near)


@lru_cache(maxsize=256)
def _known(name: str) -> ModelSpec | None:
    row = catalogue.find(name)
    if row is None:
        return None
    notes = () if catalogue.key(name) == catalogue.key(row.id) else (f"{name} means {row.id}",)
    return reader.from_config(
        row.config, path=f"catalogue row {row.id}", name=row.id, source=f"catalogue {row.date}: {row.source}",
        notes=notes,
    )  # fmt: skip


def _folder(folder: Path) -> ModelSpec:
    config = folder / "config.json"
    if not config.is_file():
        raise ModelUnreadable(f"{folder}: holds no config.json", path=str(folder), field="config.json")
    return reader.from_config(read_json(config), path=str(config), name=str(folder))
