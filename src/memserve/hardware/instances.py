"""Instance types that clouds rent, with dated prices: data/instances.json."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

from memserve import files
from memserve.errors import InvalidInput, UnknownName
from memserve.hardware import catalogue
from memserve.hardware.catalogue import processor
from memserve.hardware.machine import GIB, Card, Machine, Rent

CPU = "CPU"
APART = "the price of a host and of the cards in it stand apart in the list: give your own with @"
OWN = "the processor at hand: nobody is paid for it"
UNSOLD = "no instance with these cards is priced in memserve's data"


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
    cny_per_hour: float | None = None


@cache
def _rows() -> dict[str, list[dict[str, Any]]]:
    """Rows of data/instances.json by lower-case name."""
    read = files.table(__file__, "data/instances.json")
    found: dict[str, list[dict[str, Any]]] = {}
    for row in (*read["instances"], *_sizes(read["families"])):
        row["source"] = read["sources"].get(row.get("source"), "")
        found.setdefault(row["instance"].lower(), []).append(row)
    return found


def _sizes(families: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each size of the families of CPU instances, as a row."""
    for family in families:
        for vcpus in family["vcpus"]:
            size = "large" if vcpus == 2 else f"{vcpus // 4 if vcpus > 4 else ''}xlarge"
            yield {
                **family, "instance": f"{family['family']}.{size}", "kind": "on-demand", "card": CPU,
                "count": 1, "vcpus": vcpus, "host_gib": vcpus * family["gib_per_vcpu"],
                "usd_per_hour": round(vcpus * family["usd_per_vcpu_hour"], 6),
            }  # fmt: skip


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
    what = f"{found.cards}x{found.card.name}"
    return Machine(
        card=found.card, cards_per_node=found.cards, nodes=nodes, host_memory=found.host_memory,
        network=found.card.network if nodes > 1 else None, rent=_rent(found, nodes, found.cards * nodes),
        origin=found.name, notes=(f"{found.name} is {what} ({found.cloud})",),
    )  # fmt: skip


def on_terms(wanted: Machine, terms: str) -> Machine | None:
    """The same instances at the price of other terms (`reserved`, `past`); None where nobody states one."""
    rows = _rows().get(wanted.origin.lower(), ())
    row = next((row for row in rows if row["kind"] == terms.strip().lower()), None)
    if row is None or "usd_per_hour" not in row:
        return None
    found = _instance(row)._replace(usd_per_hour=row["usd_per_hour"])
    return replace(wanted, rent=_rent(found, wanted.nodes, wanted.cards))


def terms(wanted: Machine) -> tuple[str, ...]:
    """The kinds of prices that are listed of an instance type."""
    rows = _rows().get(wanted.origin.lower(), ())
    return tuple(dict.fromkeys(row["kind"] for row in rows if "usd_per_hour" in row))


def attached(host: Machine, cards: Machine) -> Rent:
    """What a host costs with cards put into it, where both prices stand in the list."""
    own, rows = rent(host), files.table(__file__, "data/instances.json")["attached"]
    price = next((row["usd_per_hour"] for row in rows if row["card"] == cards.card.name), None)
    if price is None or own.usd_per_hour is None:
        return own._replace(usd_per_hour=None, source=APART)
    said = f"{own.source}; and {price} $ for each {cards.card.name}"
    return own._replace(usd_per_hour=own.usd_per_hour + price * cards.cards, cards=cards.cards, source=said)


def rent(wanted: Machine) -> Rent:
    """What the cards named cost an hour, and as a part of what; no figure where nobody sells them."""
    if wanted.rent is not None:
        return wanted.rent
    if wanted.card.vendor == "cpu":
        return Rent(source=OWN)
    return _cheapest(wanted.card.name, wanted.cards_per_node, wanted.nodes) or Rent(source=UNSOLD)


@cache
def _cheapest(card: str, per_node: int, nodes: int) -> Rent | None:
    """An instance of exactly so many cards, else the cheapest with more; in dollars, else in yuan."""
    offers = [
        found
        for rows in _rows().values()
        if rows[0]["card"] == card and (found := find(rows[0]["instance"])).cards >= per_node
    ]
    for currency in ("usd_per_hour", "cny_per_hour"):
        sold = [found for found in offers if getattr(found, currency) is not None]
        if sold:
            best = min(sold, key=lambda found: (found.cards != per_node, getattr(found, currency)))
            return _rent(best, nodes, per_node * nodes)
    return None


def _rent(found: Instance, count: int, used: int) -> Rent:
    """So many instances of one type, of which so many cards are used."""
    cards = found.cards * count
    share = used / cards

    def part(price: float | None) -> float | None:
        return None if price is None else round(price * count * share, 6)

    return Rent(part(found.usd_per_hour), part(found.cny_per_hour), found.name, cards, share, found.cloud,
                found.region or None, found.date or None, _told(found, count))  # fmt: skip


def _worth(row: dict[str, Any]) -> tuple[int, float]:
    order = {"on-demand": 0, "none": 1, "monthly": 2, "reserved": 3, "past": 4, "refused": 5}
    return order[row["kind"]], row.get("usd_per_hour", 0.0)


def _instance(row: dict[str, Any]) -> Instance:
    host = row.get("host_gib")
    return Instance(
        cloud=row["cloud"], name=row["instance"], card=_card(row), cards=row["count"],
        usd_per_hour=row.get("usd_per_hour") if row["kind"] == "on-demand" else None,
        region=row.get("region", ""), date=row.get("date", ""), source=row["source"],
        host_memory=int(host * GIB) if host else None, note=row.get("note", ""),
        cny_per_hour=row.get("cny_per_hour"),
    )  # fmt: skip


def _card(row: dict[str, Any]) -> Card:
    """The row's card; a CPU's memory and rates follow from the instance's size."""
    if row["card"] != CPU:
        return catalogue.card(row["card"])
    return processor(row["vcpus"] / 2, int(row["host_gib"] * GIB))


def _told(found: Instance, count: int = 1) -> str:
    """One line: how many of which instance, where and when, and who says so."""
    said = ", ".join(filter(None, (found.region, found.date, found.note)))
    priced = found.usd_per_hour is not None or found.cny_per_hour is not None
    what = f"{count} x {found.name} ({found.cloud}{', ' if said else ''}{said})"
    return f"{what}: {found.source}" if priced else f"{what}: no hourly price is known"


def unknown(name: str) -> UnknownName:
    """The error for an instance type that nobody has, with the nearest names."""
    from difflib import get_close_matches

    near = get_close_matches(name.strip().lower()[:40], list(_rows()), n=3)
    meant = f"did you mean {', '.join(near)}?" if near else "say for instance p4d.24xlarge or g6.xlarge"
    return UnknownName(f"unknown card or instance type {name.strip()[:40]!r}: {meant}", suggestions=near)
