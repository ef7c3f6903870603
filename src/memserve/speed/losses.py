"""What compression cost in quality, as measured on this machine, or as published, and of which model.

The file of one's own rows is {"schema": 1, "losses": [{"method", "model", "benchmark", "original", ...}]}.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import log

from memserve import files

FILE = "losses.json"
ITSELF, FAMILY, OTHER = "", "of the same family", "of another family"
SIZED = re.compile(r"(\d+(?:\.\d+)?)\s*([bm])(?![a-z])")
PRUNING = {"layers": "layers", "layer": "layers", "width": "width", "channel": "width"}
"""Kinds whose amount is not part of what is looked for."""


@dataclass(frozen=True)
class Accuracy:
    """One measurement of a compressed model."""

    method: str
    model: str
    benchmark: str
    original: float
    compressed: float
    source: str
    perplexity: bool = False
    """Less is better."""
    by: str = ""
    """Who chose what goes: Wanda, SparseGPT, ShortGPT."""
    own: bool = False
    """Measured here, by `memserve compress`."""

    @property
    def loss(self) -> float:
        """The rise of perplexity, or the share of the score that is gone."""
        ratio = self.compressed / self.original
        return ratio - 1 if self.perplexity else 1 - ratio

    def of(self, model: str) -> str:
        """Whose it is, seen from a model."""
        if self.model.lower() == _named(model).lower():
            return ITSELF
        return FAMILY if _family(self.model) == _family(model) else OTHER


def accuracy(method: str, model: str | None = None) -> tuple[Accuracy, ...]:
    """Of a method: the model itself, its family, others; of each one's own first, then the nearest size."""
    wanted = _kind(method)
    rows = [row for row in (*_own(), *_published()) if _kind(row.method) == wanted]
    return tuple(sorted(rows, key=lambda row: _distance(row, model or "")))


def _named(model: str) -> str:
    """A folder by its whole path."""
    return os.path.realpath(model) if os.path.exists(model) else model


def keep(row: Accuracy) -> None:
    """Remembers what was measured here; the newest of a model and a method counts."""
    row = replace(row, model=_named(row.model))
    old = [one for one in _own() if (one.model, one.method) != (row.model, row.method)]
    text = json.dumps({"schema": 1, "losses": [asdict(one) for one in (*old, row)]}, indent=1)
    files.write(files.configured(FILE), f"{text}\n")


def _own() -> list[Accuracy]:
    """What is kept here; a file that is none of ours holds nothing."""
    if files.is_configured(FILE):
        with suppress(OSError, ValueError, TypeError, KeyError):
            kept = json.loads(files.text(files.configured(FILE)))["losses"]
            return [row for row in (Accuracy(**one) for one in kept) if row.original > 0 and row.own]
    return []


@cache
def _published() -> tuple[Accuracy, ...]:
    return tuple(_rows())


def _rows() -> Iterator[Accuracy]:
    for table in files.table(__file__, "data/accuracy.json")["tables"]:
        for model, figures in table["models"].items():
            for named, figure in figures.items():
                method, _, by = named.partition(" ")
                if method != "none":
                    yield Accuracy(method, model, table["benchmark"], figures["none"], figure,
                                   table["source"], table.get("perplexity", False), by)  # fmt: skip


def _kind(method: str) -> str:
    kind = method.partition(":")[0]
    return PRUNING.get(kind, method)


def _distance(row: Accuracy, model: str) -> tuple[int, bool, float]:
    mine, theirs = _size(model), _size(row.model)
    far = abs(log(mine / theirs)) if mine and theirs else 99.0
    return (ITSELF, FAMILY, OTHER).index(row.of(model)), not row.own, far


def _short(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2].lower().removeprefix("meta-")


def _family(model: str) -> str:
    """llama of meta-llama/Meta-Llama-3.1-8B, qwen of Qwen/Qwen2.5-7B."""
    found = re.match(r"[a-z]+", _short(model))
    return found[0] if found else model


def _size(model: str) -> float:
    """Millions of parameters that a name speaks of; 0 where it says none."""
    found = SIZED.search(_short(model))
    return float(found[1]) * (1000 if found[2] == "b" else 1) if found else 0.0
