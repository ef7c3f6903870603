"""data/constructors.dat: transformers' files reduced to their constructors, unpacked by folder."""

from __future__ import annotations

import json
import struct
import zlib
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "data" / "constructors.dat"


@cache
def _bytes() -> tuple[dict[str, Any], bytes]:
    raw = FILE.read_bytes()
    (length,) = struct.unpack_from("<I", raw)
    index: dict[str, Any] = json.loads(zlib.decompress(raw[4 : 4 + length]))
    return index, raw[4 + length :]


def index() -> dict[str, Any]:
    """transformers' tables: which class a model type means, and which file has it."""
    return _bytes()[0]


@cache
def folder(name: str) -> dict[str, Any]:
    """The reduced files of one model: rows of [names, uses, code], and imports."""
    about, blocks = _bytes()
    place = about["places"].get(name)
    if place is None:
        return {}
    start, length = place
    found: dict[str, Any] = json.loads(zlib.decompress(blocks[start : start + length]))
    return found


def file(name: str) -> dict[str, Any]:
    """One reduced file, as "llama.modeling_llama"."""
    found: dict[str, Any] = folder(name.split(".", 1)[0])[name]
    return found


def home(architecture: str, kind: str) -> str:
    """The file that has a class: in its model type's own folder, or where the tables say. Empty: nowhere."""
    about = index()
    own = about["configs"].get(kind, [""])[0].split(".")[0]
    for name, inside in folder(own).items():
        if any(architecture in row[0] for row in inside["rows"]):
            return name
    return str(about["elsewhere"].get(architecture, ""))
