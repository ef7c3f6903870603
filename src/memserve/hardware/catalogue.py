"""The cards we know, ours and those that backends bring, found by any name that people or engines use."""

import json
import re
from dataclasses import replace
from typing import Any

from memserve import files, registry
from memserve.errors import InvalidInput, UnknownName
from memserve.hardware.machine import GIB, Access, Card, Link, Machine, Vendor

MIB = 1024**2
_MAKERS = re.compile(r"nvidia|tesla|geforce|amd|instinct|radeon|intel|huawei|ascend|apple")
_BLANKS = re.compile(r"[\W_]+")
_SIZED = re.compile(r"[0-9]g(i?b)?$")
_ASIDE = re.compile(r"(?P<base>[^(,]*[^(,\s])\s*(?P<aside>[(,].*)$", re.DOTALL)
_GIGABYTES = re.compile(r"([0-9]+) ?GB")
_UNITLESS = re.compile(r"[-_ ][0-9]{2,3}$")
_SIZE_THEN_FORM = re.compile(r"(?P<stem>.+[0-9])gi?b(?P<form>sxm[0-9]?|pcie|nvl)")
_SLICE = re.compile(
    r"(?P<card>.*\w)[\s_-]+mig[\s_-]+(?P<compute>[1-7])g\.(?P<gb>[0-9]{1,3})gb", re.IGNORECASE
)
"""`A100-80GB-MIG-3g.40gb`, and as drivers say it: `NVIDIA A100-SXM4-80GB MIG 3g.40gb`."""
OF_PROFILE = 0.95
"""What a slice's driver shows of the gigabytes in its name."""
MOST_RAM_GB = 16384


def key(name: str) -> str:
    """A name with maker, case, spaces and dashes taken away: "NVIDIA A100-SXM4-80GB" -> a100sxm480gb."""
    return _BLANKS.sub("", _MAKERS.sub("", name.lower()))


@registry.remembered
def rows() -> list[dict[str, Any]]:
    """The rows of data/cards.json in their order, then those of cards.json in backends' folders."""
    return [
        {**row, "sources": [table["sources"][name] for name in row["sources"]]}
        for table in _tables()
        for row in table["cards"]
    ]


def _tables() -> list[dict[str, Any]]:
    others = (json.loads(files.text(path)) for path in registry.tables("cards.json"))
    return [files.table(__file__, "data/cards.json"), *others]


@registry.remembered
def access(vendor: Vendor) -> Access:
    """What the first table that names the cards' maker says."""
    said: dict[str, Any] = {}
    for table in reversed(_tables()):
        said = table.get("vendors", {}).get(vendor, said)
    fields: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in said.items()
    }
    return Access(**fields)


@registry.remembered
def _index() -> dict[str, int]:
    """Every spelling -> the row's number. A card's own name wins over another's alias."""
    found: dict[str, int] = {}
    for number, row in enumerate(rows()):
        found.setdefault(key(row["name"]), number)
    for number, row in enumerate(rows()):
        for name in (row["name"], *row.get("aliases", ()), *row.get("default_for", ())):
            bare = key(name)
            found.setdefault(bare, number)
            if row["nominal_gb"] and not _SIZED.search(bare):
                found.setdefault(f"{bare}{row['nominal_gb']}gb", number)
    return found


@registry.remembered
def cards() -> tuple[Card, ...]:
    """Every card, in the catalogue's order."""
    return tuple(_card(number) for number in range(len(rows())))


def card(name: str) -> Card:
    """The card of that name, whatever the case: `v100`, `A100-40GB`, `NVIDIA GeForce RTX 4090`."""
    return resolve(name)[0]


def resolve(name: str) -> tuple[Card, tuple[str, ...]]:
    """The card of that name, and what was assumed, as "V100 means V100-32GB"."""
    number = _number(name)
    if number is not None:
        return _card(number), _assumed(name, number)
    plain, part = _without_aside(name), _SLICE.fullmatch(name.strip())
    if part is not None:
        return cut(card(part["card"]), int(part["compute"]), int(part["gb"])), ()
    if plain != name:
        return resolve(plain)
    return _sized(name), ()


def cut(whole: Card, compute: int, gigabytes: int, total: int | None = None) -> Card:
    """A MIG slice: its own memory, and its part of the card's rates."""
    if gigabytes > whole.nominal_gb:
        raise InvalidInput(f"no {whole.name} has a slice of {gigabytes} GB: it has {whole.nominal_gb:g}")
    size = total or int(gigabytes * 1024 * OF_PROFILE) * MIB
    return replace(
        whole, name=f"{whole.name}-MIG-{compute}g.{gigabytes}gb", memory=size, driver_memory=size,
        nominal_gb=float(gigabytes), memory_measured=False, link=None, per_node=1,
        bandwidth=whole.bandwidth * min(1.0, gigabytes / whole.nominal_gb),
        flops={dtype: rate * compute / 7 for dtype, rate in whole.flops.items()},
    )  # fmt: skip


def _number(name: str) -> int | None:
    """The row of a name as it stands, or respelled: A100-80, V100-32G, H100 80GB SXM."""
    index = _index()
    found = index.get(key(name))
    return index[other] if found is None and (other := _respelled(name)) in index else found


def _respelled(name: str) -> str:
    """The size in full and at the end, as the index has it."""
    bare = key(name) + ("gb" if _UNITLESS.search(name.strip()) else "")
    match = _SIZE_THEN_FORM.fullmatch(bare)
    if match is None:
        return re.sub(r"(?<=[0-9])gi?b?$", "gb", bare)
    stem, form = match["stem"], match["form"]
    spelled = [f"{stem[:-n]}{part}{stem[-n:]}gb" for n in (2, 3) for part in (form, "")]
    meant = spelled if form.startswith("sxm") else spelled[::2]
    return next((one for one in meant if one in _index()), bare)


def dies(name: str) -> int:
    """Devices of the board of that name, which the driver shows apart; 1 for most."""
    number = _number(name)
    return 1 if number is None else _boards(number).get(key(name), 1)


@registry.remembered
def _boards(number: int) -> dict[str, int]:
    return {key(board): count for board, count in rows()[number].get("boards", {}).items()}


def knows(name: str) -> bool:
    """Whether `card` would find it."""
    if _number(name) is not None:
        return True
    plain, part = _without_aside(name), _SLICE.fullmatch(name.strip())
    if part is not None or plain != name:
        return knows(part["card"] if part else plain)
    number, _ = _split_size(name)
    return number is not None and "sizes" in rows()[number]


def with_memory(machine: Machine, gib_per_card: float) -> Machine:
    """The same machine whose cards have the total that an engine reported."""
    if not 0 < gib_per_card < 100_000:
        raise InvalidInput(f"memory per card must be above 0 GiB, not {gib_per_card}")
    seen = replace(machine.card, memory=round(gib_per_card * GIB), memory_measured=True)
    return replace(machine, card=seen, free_memory=None)


@registry.remembered
def _card(number: int) -> Card:
    row = rows()[number]
    capability = row.get("capability")
    return Card(
        name=row["name"], vendor=row["vendor"], memory=row["memory_mib"] * MIB,
        driver_memory=row["driver_mib"] * MIB, nominal_gb=float(row["nominal_gb"]),
        bandwidth=row["bandwidth_gb_s"] * 1e9,
        flops={dtype: rate * 1e12 for dtype, rate in row["tflops"].items()},
        capability=(capability[0], capability[1]) if capability else None, soc=row.get("soc"),
        link=_link(row.get("link")), host_link=_link(row.get("host")),
        network=_network(row.get("network_gb_s")), tdp_watts=row.get("tdp_w"),
        per_node=row.get("per_node", Card.per_node),
        memory_measured=row["memory"] == "measured", sources=tuple(row["sources"]),
        notes=tuple(row.get("notes", ())),
    )  # fmt: skip


def _link(row: dict[str, Any] | None) -> Link | None:
    return Link(row["kind"], row["gb_s"] * 1e9, row["source"]) if row else None


def _network(gb_s: float | None) -> Link | None:
    return Link("fabric", gb_s * 1e9, "assumed: the fabric usual for such nodes") if gb_s else None


def _assumed(name: str, number: int) -> tuple[str, ...]:
    row, said = rows()[number], name.strip()
    board = _boards(number).get(key(name))
    if board == 1:
        return (f"{said} is one of the two devices of a board, {row['nominal_gb']} GB: count each",)
    if board:
        return (f"one {said} is {board} devices, each {row['name']} with {row['nominal_gb']} GB",)
    if "sizes" in row and key(name) != "cpu" and not re.search(r"\d+ ?gi?b", said.lower()):
        return (
            f"{said} is taken with {row['nominal_gb']} GB of memory: say {row['name']}-<GB>GB for another",
        )
    if key(name) not in {key(family) for family in row.get("default_for", ())}:
        return ()
    others = [other for other in _sizes(name) if other != row["name"]]
    tail = f" (say {' or '.join(others)} for the other)" if others else ""
    return (f"{said} means {row['name']}{tail}",)


def _sizes(family: str) -> list[str]:
    """The cards that differ from a family's name by their memory only."""
    own = re.compile(rf"{re.escape(key(family))}[0-9]+gb")
    return [row["name"] for row in rows() if own.fullmatch(key(row["name"]))]


def _without_aside(name: str) -> str:
    """`A100 (40 GB, size inferred)` -> `A100 40GB`: what stands in brackets is dropped, but for a size."""
    match = _ASIDE.match(name)
    if match is None:
        return name
    size = _GIGABYTES.search(match["aside"])
    return f"{match['base']} {size[1]}GB" if size else match["base"]


def _split_size(name: str) -> tuple[int | None, int]:
    """The row and the gigabytes of NAME-<n>GB; the shortest number after a known name counts."""
    bare = key(name)
    if not _SIZED.search(bare):
        return None, 0
    stem = bare[: bare.rindex("g")]
    for digits in range(1, 5):
        base, gb = stem[:-digits], stem[-digits:]
        if gb.isascii() and gb.isdigit() and gb[0] != "0" and base in _index():
            return _index()[base], int(gb)
    return None, 0


def _sized(name: str) -> Card:
    """A card sold with a chosen memory, as M3-Max-64GB; its total follows its own rule."""
    number, gb = _split_size(name)
    if number is None:
        raise _unknown(name)
    base, rule = _card(number), rows()[number].get("sizes")
    if rule is None:
        sizes = _sizes(base.name.split("-")[0]) or [base.name]
        meant = f"did you mean {', '.join(sizes)}?"
        raise UnknownName(f"no {base.name.split('-')[0]} has {gb} GB: {meant}", suggestions=sizes)
    if not 1 <= gb <= MOST_RAM_GB:
        raise InvalidInput(f"{name.strip()!r}: {gb} GB of memory is outside 1 to {MOST_RAM_GB}")
    seen = int(gb * GIB * share_of_ram(rule, gb))
    return replace(base, name=f"{base.name}-{gb}GB", nominal_gb=float(gb), memory=seen,
                   driver_memory=gb * GIB, memory_measured=rule == "ram")  # fmt: skip


def share_of_ram(rule: str, gb: float) -> float:
    """The part of the RAM that the framework may use: all of it on a CPU, less on unified memory."""
    if rule == "metal":
        return 2 / 3 if gb <= 36 else 3 / 4
    return 3 / 4 if rule == "igpu" else 1.0


def _unknown(name: str) -> UnknownName:
    shown = name.strip()[:40]
    near = suggestions(name)
    meant = (
        f"did you mean {', '.join(near)}?" if near else "say for instance A100-80GB, RTX4090, 910B4 or cpu"
    )
    return UnknownName(f"unknown card {shown!r}: {meant}", suggestions=near)


def suggestions(name: str) -> list[str]:
    """The catalogue's names nearest to a mistyped one."""
    from difflib import get_close_matches

    asked = key(name)[:40]
    families = {key(f): f for row in rows() for f in row.get("default_for", ())}
    for bare, family in families.items():
        if len(asked) > 1 and bare.startswith(asked) and _sizes(family):
            return _sizes(family)
    names = {key(row["name"]): row["name"] for row in rows()}
    starting = [full for bare, full in names.items() if len(asked) > 1 and bare.startswith(asked)]
    return starting[:3] or [names[near] for near in get_close_matches(asked, names, n=3)]


# Operations per cycle and core with the widest usable instructions (two units of that width).
_FLOATS_PER_CYCLE = {"amx": 64, "avx512": 64, "avx2": 32, "asimd": 16, "": 8}
_BFLOATS_PER_CYCLE = {"amx": 1024, "avx512": 128}
_CLOCK = 2.5e9
_BANDWIDTH_OF_CORE = 10e9
"""Bytes per second that one core gets from memory; the assumed server's bandwidth bounds all of them."""


def processor(cores: float, ram: int, widest: str = "avx512") -> Card:
    """A CPU of so many cores and bytes of RAM."""
    assumed, per_second = card("CPU"), cores * _CLOCK
    floats = per_second * _FLOATS_PER_CYCLE[widest]
    flops = {"float32": floats, "bfloat16": per_second * _BFLOATS_PER_CYCLE.get(widest, 0) or floats,
             "int8": floats * 2}  # fmt: skip
    return replace(
        assumed, memory=ram, driver_memory=ram, nominal_gb=round(ram / 1e9, 1), flops=flops,
        bandwidth=min(assumed.bandwidth, cores * _BANDWIDTH_OF_CORE), memory_measured=True,
        notes=("rates are estimated from cores and instruction sets; bandwidth is assumed",),
    )  # fmt: skip
