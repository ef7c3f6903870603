"""One of Pangu's interfaces: a row of interfaces.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from memserve import files
from memserve.protocol import Capabilities

EXTRA = "pangu_"


@dataclass(frozen=True)
class Interface:
    """What one interface takes; see interfaces.json."""

    name: str
    ways: tuple[str, ...]
    message: str
    """Where a chunk of its stream keeps what is new."""
    model: bool
    """The body names the model; otherwise the deployment in the path does."""
    raw: bool
    n: int
    stop: bool
    tools: bool
    max_temperature: float
    extras: tuple[str, ...]


@cache
def interfaces() -> dict[str, Interface]:
    """Every interface by its name."""
    rows = files.table(__file__, "interfaces.json")["interfaces"]
    return {row["name"]: _interface(row) for row in rows}


def _interface(row: Mapping[str, Any]) -> Interface:
    values = {key: value for key, value in row.items() if key != "source"}
    return Interface(**{**values, "ways": tuple(row["ways"]), "extras": tuple(row["extras"])})


def capabilities(interface: Interface, model: str | None) -> Capabilities:
    """What the interface can do."""
    return Capabilities(
        backend="pangu", engine=interface.name, model=model, chat=True, temperature=True, top_p=True,
        max_tokens=True, usage=True, raw=interface.raw, tools=interface.tools, stop=interface.stop,
        max_temperature=interface.max_temperature, n=interface.n > 1, max_n=interface.n, stream=True,
        extras=frozenset(EXTRA + name for name in interface.extras), cancel=True,
    )  # fmt: skip
