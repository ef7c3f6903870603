"""Which checkpoint of a model has a quantization: known to exist, made while loading, or to be made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from memserve.engines import making
from memserve.errors import DoesNotFit
from memserve.model.spec import ModelSpec
from memserve.plan.candidate import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from memserve.model import catalogue

_PLAIN = re.compile(r"[\w./@:+-]+", re.ASCII).fullmatch
MODELSLIM = "modelslim"
"""The form that engines read on cards whose maker has tools of its own, and no engine elsewhere does."""


def checkpoints(model: ModelSpec, quantization: str, *, online: bool, vendor: str) -> list[Checkpoint]:
    """What could be loaded for this quantization, known checkpoints first."""
    known = known_checkpoints(model, quantization, vendor)
    if quantization in model.levels:
        from memserve.model.catalogue import formats

        bits = float(formats()[quantization]["bits"])
        return [Checkpoint(model.id, quantization, model.source, stored=True, bits=bits)]
    if model.quantization is not None:
        known = [] if model.quantization.method == quantization else known
        bits = model.quantization.bits
        file = model.source if model.source.endswith(".gguf") else model.id  # a GGUF's own name finds no file
        return known or [Checkpoint(file, quantization, model.source, stored=True, bits=bits)]
    if quantization == "none":
        return [Checkpoint(model.id, quantization, model.source, bits=16)]
    if known:
        return known
    if online:
        return [Checkpoint(model.id, quantization, model.source, online=True)]
    made = to_make(model, quantization, vendor)
    return [made] if made else []


def known_checkpoints(model: ModelSpec, quantization: str, vendor: str) -> list[Checkpoint]:
    """The quantized checkpoints in the catalogue that engines for this maker read, with who names them."""
    return [
        Checkpoint(
            one.id, quantization, one.source, bits=one.bits, group_size=one.group_size, block=one.block
        )
        for one in _rows_of(model)
        if one.method == quantization
        and (one.format == MODELSLIM) == ("command" in making.table(vendor)["methods"].get(quantization, {}))
    ]


def known_methods(model: ModelSpec) -> list[str]:
    """Quantizations in which the catalogue knows a checkpoint of the model."""
    return [one.method for one in _rows_of(model)]


def _rows_of(model: ModelSpec) -> tuple[catalogue.Checkpoint, ...]:
    from memserve.model import catalogue

    row = catalogue.find(model.id)
    return row.checkpoints if row is not None else ()


def to_make(model: ModelSpec, quantization: str, vendor: str) -> Checkpoint | None:
    """A checkpoint that does not exist yet, with the command that makes it; None where nobody makes it."""
    kind, _, level = quantization.partition("-")
    row = making.table(vendor)["methods"].get(kind)
    if row is None or row.get("prunes") or not re.fullmatch(row.get("form", ""), level):
        return None
    short = model.id.rstrip("/").rsplit("/", 1)[-1]
    folder = f"./{short}-{quantization}"
    words = {"{model}": model.id, "{target}": folder, "{short}": short, "{method}": quantization}
    make = row.get("command", "memserve compress {model} --to {method} -o {target}")
    for name, word in words.items():
        make = make.replace(name, word if _PLAIN(word) else _quoted(word))
    place = f"{folder}/{short}-{quantization}.gguf" if level else folder
    made = f"to be made first: {row['source']}"
    return Checkpoint(place, quantization, made, make=make, group_size=_group(quantization, row, model))


def _group(quantization: str, row: Mapping[str, Any], model: ModelSpec) -> int | None:
    """Where the usual one does not divide; what no size divides is refused by the engines' rules."""
    sizes = row.get("multiple", ())
    try:
        found = making.group(quantization, sizes, model)
    except DoesNotFit:
        return None
    return None if found in sizes[:1] else found


def _quoted(word: str) -> str:
    import shlex  # few names need it, and it costs a plan a millisecond

    return shlex.quote(word)
