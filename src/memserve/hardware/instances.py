"""Instance types that clouds rent, with dated prices: data/instances.json."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from memserve import files
from memserve.errors import InvalidInput, UnknownName
from memserve.hardware import catalogue
from memserve.hardware.machine import GIB, Machine

if TYPE_CHECKING:
    from memserve.hardware.machine import Card


class Instance(NamedTuple):
    """One instance type of one cloud; `usd_per_hour` is None where no current hourly price is known."""

    cloud: str
    name: str
    card: Card
    cards: int
    usd_per_hour: float | None
    region: str = ""
    date: str = ""
    source: str = ""
    host_memory: int | None = None
    note: str = ""


@cache
def _rows() -> dict[str, list[dict[str, Any]]]:
    """Rows of data/instances.json by lower-case name."""
    read = files.table(__file__, "data/instances.json")
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read["instances"]:
        row["source"] = read["sources"].get(row.get("source"), "")
        found.setdefault(row["instance"].lower(), []).append(row)
    return found


def names() -> tuple[str, ...]:
    """Every instance type that can be planned for."""
    return tuple(rows[0]["instance"] for rows in _rows().values() if rows[0]["kind"] != "refused")


def knows(name: str) -> bool:
    """Whether some cloud has an instance type of that name."""
    return name.strip().lower() in _rows()


@cache
def find(name: str) -> Instance:
    """The instance type of that name, at its cheapest current on-demand price over the regions."""
    rows = _rows().get(name.strip().lower())
    if rows is None:
        raise unknown(name)
    row = min(rows, key=_worth)
    if row["kind"] == "refused":
        raise InvalidInput(f"instance type {row['instance']} cannot be planned: {row['note']}")
    return _instance(row)


def machine(name: str, nodes: int = 1) -> Machine:
    """One or more nodes of an instance type."""
    found = find(name)
    price = found.usd_per_hour
    return Machine(
        card=found.card,
        cards_per_node=found.cards,
        nodes=nodes,
        host_memory=found.host_memory,
        network=found.card.network if nodes > 1 else None,
        usd_per_hour=None if price is None else price * nodes,
        price_source=_told(found),
        origin=found.name,
        notes=(f"{found.name} is {found.cards}x{found.card.name} ({found.cloud})",),
    )


def cheapest(wanted: Machine) -> tuple[Instance, int] | None:
    """The cheapest way to rent what was named: an instance type and how many of it; None: nobody sells it.

    A node of the wanted machine must fit into one instance.
    """
    offers = [
        (found, wanted.nodes)
        for name in names()
        if (found := find(name)).card.name == wanted.card.name
        and found.cards >= wanted.cards_per_node
        and found.usd_per_hour is not None
    ]
    return min(offers, key=lambda offer: (offer[0].usd_per_hour or 0.0) * offer[1], default=None)


def _worth(row: dict[str, Any]) -> tuple[int, float]:
    order = {"on-demand": 0, "none": 1, "monthly": 2, "reserved": 3, "past": 4, "refused": 5}
    return order[row["kind"]], row.get("usd_per_hour", 0.0)


def _instance(row: dict[str, Any]) -> Instance:
    host = row.get("host_gib")
    return Instance(
        cloud=row["cloud"],
        name=row["instance"],
        card=catalogue.card(row["card"]),
        cards=row["count"],
        usd_per_hour=row.get("usd_per_hour") if row["kind"] == "on-demand" else None,
        region=row.get("region", ""),
        date=row.get("date", ""),
        source=row["source"],
        host_memory=host * GIB if host else None,
        note=row.get("note", ""),
    )


def _told(found: Instance) -> str:
    if found.usd_per_hour is None:
        return ""
    return f"{found.cloud} {found.region} on demand, {found.date}: {found.source}"


def unknown(name: str) -> UnknownName:
    """The error for an instance type that nobody has, with the nearest names."""
    from difflib import get_close_matches

    near = get_close_matches(name.strip().lower()[:40], list(_rows()), n=3)
    meant = f"did you mean {', '.join(near)}?" if near else "say for instance p4d.24xlarge or g6.xlarge"
    return UnknownName(f"unknown card or instance type {name.strip()[:40]!r}: {meant}", suggestions=near)
