"""How checkpoints are made: methods by the word of `--to`; making.json here and in the backends' folders."""

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
    from memserve.model.spec import ModelSpec, Weight


@runtime_checkable
class Makes(Protocol):
    """A backend whose engine comes with tools that make checkpoints."""

    @property
    def making(self) -> Mapping[str, Any] | None:
        """Libraries and methods, as engines/making.json has them; None where the engine makes none."""
        ...


@dataclass(frozen=True)
class Library:
    """A library that makes checkpoints, in an environment of its own."""

    name: str
    packages: tuple[str, ...]
    worker: str
    """The module of ours that calls it."""
    env: Mapping[str, str]
    judges: bool = False
    """What it makes is measured by that module, too: transformers does not read it."""

    @property
    def install(self) -> str:
        """The line that makes its environment."""
        return " ".join(("pip install", *self.packages))

    @property
    def distributions(self) -> tuple[str, ...]:
        """The packages without their releases, the library itself first."""
        return tuple(re.split(r"[=<>\[!]", one)[0] for one in self.packages)


@dataclass(frozen=True)
class Method:
    """One step towards a smaller model, as it was asked for."""

    name: str
    kind: str
    """Its row: `gguf` of gguf-q4_k_m, `layers` of layers:2."""
    amount: float
    """Layers to drop, or the share of each MLP to keep; 0 where nothing is to be said."""
    library: Library
    row: Mapping[str, Any]

    @property
    def prunes(self) -> bool:
        """It leaves an ordinary 16-bit checkpoint."""
        return bool(self.row.get("prunes"))

    @property
    def samples(self) -> int:
        """Calibration samples where nobody says how many."""
        return int(self.row["samples"])

    def touches(self, weight: Weight) -> bool:
        """Whether a weight is quantized by it."""
        return weight.linear and not is_left_alone(f"x.{weight.name}") and weight.part not in _PARTS

    def group(self, model: ModelSpec) -> int | None:
        """Inputs that share a scale: the first of the row's that divides every row; None: none is needed."""
        wanted = self.row.get("multiple")
        if not wanted:
            return None
        rows = {weight.shape[-1]: weight.name for weight in model.weights if self.touches(weight)}
        for group in wanted:
            if all(length % group == 0 for length in rows):
                return int(group)
        odd = next((length, name) for length, name in rows.items() if length % wanted[-1])
        raise DoesNotFit(f"{self.name} needs rows of a multiple of {wanted[-1]}, and {odd[1]} has {odd[0]}")


_PARTS = frozenset({"embedding", "position", "head", "router", "norm", "tower", "projector"})


@cache
def table(vendor: str = "") -> dict[str, Any]:
    """Libraries and methods: our own, then those of backends; for a maker's cards its own win."""
    rows: dict[str, Any] = files.table(__file__, "making.json")
    found = {**rows, "libraries": {**rows["libraries"]}, "methods": {**rows["methods"]}}
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
    last = [method for method in found if not method.prunes]
    if len(last) > 1:
        raise InvalidInput(f"{last[0].name} and {last[1].name}: weights are quantized once")
    kinds = [method.kind for method in found]
    if len({*kinds}) < len(kinds):
        raise InvalidInput(f"--to names {max(kinds, key=kinds.count)} twice")
    return tuple(sorted(found, key=lambda method: not method.prunes))


def one(word: str, vendor: str = "") -> Method:
    """One word of `--to`."""
    rows = table(vendor)
    if word in rows["refused"]:
        raise DoesNotFit(f"{word}: {rows['refused'][word]['reason']}")
    kind, _, amount = word.partition(":")
    kind = kind if kind in rows["methods"] else kind.partition("-")[0]
    row = rows["methods"].get(kind)
    if row is None or (kind != word and not row.get("prunes") and not row.get("levels")):
        known = [*rows["methods"], *rows["refused"]]
        raise UnknownName(f"no such method: {word[:60]!r}", suggestions=cli.nearest(word, known),
                          hint=f"known: {', '.join(known)}")  # fmt: skip
    if row.get("levels") and word.partition("-")[2] not in row["levels"]:
        raise InvalidInput(f"{word[:40]!r} is no level", hint=f"{kind}-{', '.join(row['levels'])}")
    if "command" in row:
        line = row["command"].replace("{method}", word)
        raise DoesNotFit(f"{word} for these cards is made on one of them, and not from here: {line}")
    library = rows["libraries"][row["library"]]
    made = Library(row["library"], tuple(library["packages"]), library["worker"], library.get("env", {}),
                   library.get("judges", False))  # fmt: skip
    return Method(word, kind, _amount(kind, amount) if row.get("prunes") else 0.0, made, row)


def _amount(kind: str, text: str) -> float:
    """layers:N drops N whole layers; width:R keeps a share between 0 and 1."""
    whole = kind == "layers"
    if re.fullmatch(r"[1-9]\d{0,3}" if whole else r"0?\.\d{1,4}", text) and float(text) > 0:
        return float(text)
    wanted = "a whole number of layers to drop" if whole else "the share of each MLP to keep, between 0 and 1"
    raise InvalidInput(f"{kind}:{text[:20]} needs {wanted}")


def quantizations(vendor: str = "") -> list[Method]:
    """Every way to fewer bits that is made from here, at the levels that are offered."""
    rows = {kind: row for kind, row in table(vendor)["methods"].items() if "library" in row}
    words = [[f"{kind}-{level}" for level in row.get("offered", ())] or [kind]
             for kind, row in rows.items() if not row.get("prunes")]  # fmt: skip
    return [one(word, vendor) for several in words for word in several]


def is_left_alone(module: str) -> bool:
    """Whether no method touches a module of that name."""
    return any(re.fullmatch(row["pattern"], module) for row in table()["left_alone"])
