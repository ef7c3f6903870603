"""The catalogue held against a hub: what changed is told, and kept in a catalogue of the user's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from memserve import files
from memserve.errors import InvalidInput, MemserveError, UnknownName
from memserve.missing import install_line
from memserve.model import catalogue, hub, reader
from memserve.model.config import read_json
from memserve.model.spec import ModelSpec

METHODS = (
    (r"quantized[.]w8a8$", "w8a8"), (r"(quantized[.]w4a16|w4a16-ct)$", "w4a16"), (r"nvfp4$", "nvfp4"),
    (r"fp8(-dynamic|-block)?$", "fp8"), (r"gptq([-_]?(int4|4bit))?$", "gptq"),
    (r"awq([-_]?(int4|4bit))?$", "awq"), (r"gguf$", "gguf-q4_k_m"), (r"bnb-4bit$", "nf4"),
)  # fmt: skip
"""What the end of a repository's name says of its weights."""
KEPT = frozenset({"model_type", "architectures"})
TOLD = ("parameters", "layers", "hidden", "vocabulary", "max_context", "dtype", "stored")
MOST = 100
"""Quantized repositories of a model that are looked at, the most loaded first."""


class Change(NamedTuple):
    """One thing that the hub has otherwise."""

    model: str
    what: str
    """`new`, `gone`, `checkpoint`, or the name of a figure."""
    before: str
    after: str


def refresh(names: tuple[str, ...]) -> Iterator[Change]:
    """Ask the hub for each model (`all`: each of the catalogue), keep what it says, and tell what is new."""
    if not hub.available():
        raise InvalidInput(
            "the hub may not be asked", hint=f"{install_line('hub')}, and leave HF_HUB_OFFLINE unset"
        )
    asked = [row.id for row in catalogue.rows() if "@" not in row.id] if names == ("all",) else list(names)
    for name in asked:
        known = catalogue.find(name)
        try:
            row = _row(known.id if known else name, known)
        except UnknownName:
            yield Change(name, "gone" if known else "unknown", "", hub.endpoint())
            continue
        except MemserveError as error:
            yield Change(name, "unread", "", error.message)
            continue
        yield from _changes(row, known)
        _keep(row)


def _row(name: str, known: catalogue.Row | None) -> dict[str, Any]:
    """The row that the hub's answers make."""
    folder = hub.fetched(name)
    config, commit = read_json(folder / "config.json"), folder.name
    listed = [one._asdict() for one in known.checkpoints] if known else []
    found = _quantized(name, {one["id"] for one in listed})
    row = {
        "id": name, "aliases": list(known.aliases) if known else [],
        "source": f"{hub.endpoint()} {date.today()}, commit {commit}",
        "checkpoints": [{key: value for key, value in one.items() if value} for one in (*listed, *found)],
        "config": least(config),
    }  # fmt: skip
    kept = ("pooling", "scoring_tokens", "tokenizer_code") if known else ()
    return {**row, **{name: value for name in kept if (value := getattr(known, name))}}


def _quantized(name: str, listed: set[str]) -> Iterator[dict[str, str]]:
    """Repositories that the hub knows as quantized from this model, by makers whom the catalogue names."""
    makers = {one.id.partition("/")[0] for row in catalogue.rows() for one in row.checkpoints}
    for one in hub.quantized(name, MOST):
        method = next((word for end, word in METHODS if re.search(end, one.id, re.IGNORECASE)), None)
        if method and one.id not in listed and one.id.partition("/")[0] in makers:
            commit = {"revision": one.sha} if one.sha else {}
            yield {"id": one.id, "method": method, "source": hub.endpoint(), **commit}


def least(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration without which its shapes would be others."""
    whole, kept = reader.from_config(config), deepcopy(dict(config))

    def same() -> bool:
        try:
            return reader.from_config(kept) == whole
        except MemserveError:
            return False

    def prune(table: dict[str, Any], needed: frozenset[str]) -> None:
        for key in [key for key in table if key not in needed]:
            before = dict(table)
            del table[key]
            if not same():
                table.clear()
                table.update(before)
                if isinstance(table[key], dict):
                    prune(table[key], frozenset())

    prune(kept, KEPT)
    return kept


def _changes(row: Mapping[str, Any], known: catalogue.Row | None) -> Iterator[Change]:
    fresh = _figures(reader.from_config(row["config"]))
    if known is None:
        yield Change(row["id"], "new", "", f"{fresh['parameters']} parameters")
    before = _figures(reader.from_config(known.config)) if known else fresh
    for name in TOLD:
        if fresh[name] != before[name]:
            yield Change(row["id"], name, before[name], fresh[name])
    listed = {one.id for one in known.checkpoints} if known else set()
    for one in row["checkpoints"]:
        if one["id"] not in listed:
            yield Change(row["id"], "checkpoint", "", f"{one['id']} ({one['method']})")


def _figures(spec: ModelSpec) -> dict[str, str]:
    stored = spec.quantization.method if spec.quantization else "none"
    values = (
        spec.parameters,
        len(spec.blocks),
        spec.hidden,
        spec.vocabulary,
        spec.max_context or 0,
        spec.dtype,
    )
    told = (f"{value:,}" if isinstance(value, int) else value for value in (*values, stored))
    return dict(zip(TOLD, told, strict=True))


def _keep(row: dict[str, Any]) -> None:
    """Write a row into the user's catalogue, in the place of an older one."""
    path = Path(files.configured(catalogue.OWN))
    rows = {one["id"]: one for one in catalogue.own(str(path))} if path.exists() else {}
    rows[row["id"]] = row
    files.write(path, "".join(f"{json.dumps(one)}\n" for one in rows.values()))
