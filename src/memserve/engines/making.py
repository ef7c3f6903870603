"""How checkpoints are made: methods by the word of `--to`; making.json here and in backends' folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from memserve import cli, files, registry
from memserve.engines import installed
from memserve.errors import DoesNotFit, InvalidInput, UnknownName

if TYPE_CHECKING:
    from memserve.model.spec import ModelSpec


@runtime_checkable
class Makes(Protocol):
    """A backend whose engine comes with tools that make checkpoints."""

    @property
    def making(self) -> Mapping[str, Any] | None:
        """Libraries and methods, in the form of engines/making.json; None where the engine makes none."""
        ...


_LEFT_ALONE = frozenset({"head", "router", "tower", "projector"})


@dataclass(frozen=True)
class Method:
    """One step towards a smaller model, as it was asked for."""

    name: str
    kind: str
    """Its row: `gguf` of gguf-q4_k_m, `layers` of layers:2."""
    amount: float
    """Layers to drop, or the share of each MLP to keep."""
    row: Mapping[str, Any]
    library: Mapping[str, Any]
    """packages (pinned), worker (the module of ours that calls them), env, judges (its results itself)."""

    @property
    def prunes(self) -> bool:
        """It leaves an ordinary 16-bit checkpoint."""
        return bool(self.row.get("prunes"))

    def group(self, model: ModelSpec) -> int | None:
        """Inputs that share a scale; None: none is needed."""
        return group(self.name, self.row.get("multiple", ()), model)


def group(name: str, wanted: Sequence[int], model: ModelSpec) -> int | None:
    """The first of these sizes that divides every row of the layers that the method touches."""
    linear = [one for one in model.kinds if one.linear and one.part not in _LEFT_ALONE]
    if not wanted or not any(length % wanted[0] for length in {one.shape[-1] for one in linear}):
        return next(iter(wanted), None)
    rows = {one.shape[-1]: one.name for one in linear if not is_left_alone(f"x.{one.name}")}
    for size in wanted:
        if all(length % size == 0 for length in rows):
            return size
    odd = next(length for length in rows if length % wanted[-1])
    raise DoesNotFit(f"{name} needs rows of a multiple of {wanted[-1]}, and {rows[odd]} has {odd}")


@cache
def table(vendor: str = "") -> dict[str, Any]:
    """Libraries and methods: our own, then those of backends; for a maker's cards its own win."""
    found: dict[str, Any] = files.table(__file__, "making.json")
    for name in registry.names():
        backend: object = registry.find(name) if installed.may(name, "making") else None
        more = backend.making if isinstance(backend, Makes) else None
        if more and more.get("vendor", vendor) == vendor:
            found["libraries"].update(more.get("libraries", {}))
            found["methods"].update(more["methods"])
    return found


def read(words: Sequence[str], vendor: str = "") -> tuple[Method, ...]:
    """What `--to` says, in the order in which it is done: pruning, then at most one quantization."""
    found = [one(word, vendor) for word in words]
    last = [method.name for method in found if not method.prunes]
    if len(last) > 1:
        raise InvalidInput(f"{last[0]} and {last[1]}: weights are quantized once")
    if len({method.kind for method in found}) < len(found):
        raise InvalidInput("--to names a kind of pruning twice")
    return tuple(sorted(found, key=lambda method: not method.prunes))


def one(word: str, vendor: str = "") -> Method:
    """One word of `--to`, in any case."""
    rows, word = table(vendor), word.strip().lower()
    if word in rows["refused"]:
        raise DoesNotFit(f"{word}: {rows['refused'][word]['reason']}")
    kind, _, detail = re.sub(r"^gguf-", "gguf:", word).partition(":")
    row = rows["methods"].get(kind, {})
    if kind not in rows["methods"] or bool(detail) != bool(row.get("form")):
        known = [*rows["methods"], *rows["refused"]]
        raise UnknownName(f"no such method: {word[:60]!r}", suggestions=cli.nearest(word, known),
                          hint=f"known: {', '.join(known)}")  # fmt: skip
    if not re.fullmatch(row.get("form", ""), detail):
        raise InvalidInput(f"{word[:40]!r}: {row['says']}")
    if "command" in row:
        raise DoesNotFit(
            f"{word} for these cards is made on one of them, and not from here: "
            + re.sub(r"\{(\w+)\}", lambda one: word if one[1] == "method" else one[1].upper(), row["command"])
        )
    amount = float(detail) if row.get("prunes") else 0.0
    return Method(word.replace("gguf:", "gguf-"), kind, amount, row, rows["libraries"][row["library"]])


def quantizations(vendor: str = "") -> list[Method]:
    """Every way to fewer bits that is made from here, at the levels that are offered."""
    rows = {kind: row for kind, row in table(vendor)["methods"].items() if "library" in row}
    words = [
        word for kind, row in rows.items() if not row.get("prunes") for word in row.get("offered", (kind,))
    ]
    return [one(word, vendor) for word in words]


def install(library: Mapping[str, Any]) -> str:
    """The line that makes a library's environment."""
    return " ".join(("pip install", *library["packages"]))


def is_left_alone(module: str) -> bool:
    """Whether no method touches a module of that name."""
    return any(re.fullmatch(row["pattern"], module) for row in table()["left_alone"])
