"""Reads a machine's spec: 4xV100, 4 V100, 2x8xH100, 8x910B4@12.5, p4d.24xlarge, cpu."""

import re
from dataclasses import replace

from memserve.errors import InvalidInput, UnknownName
from memserve.hardware import catalogue, instances
from memserve.hardware.machine import Machine, Rent

MOST_CARDS_PER_NODE = 128
MOST_NODES = 1024
MOST_USD = 1e6
GIVEN = "the price given"
_COUNT = re.compile(r"^\s*([+-]?[0-9]+(?:\.[0-9]+)?)\s*[xX×*]\s*(.*)$", re.DOTALL)
_UNMARKED = re.compile(r"^\s*([0-9]{1,4})\s*(\S.*)$", re.DOTALL)
"""`4 V100` and `2L4`: read as a count only where what follows is a name."""
_RAM = re.compile(r"^\s*([0-9]+)\s*Gi?B?(?: (?:of )?RAM)?\s*$", re.IGNORECASE)
_ASIDE = re.compile(r"\([^()]*\)")
_GRAMMAR = "write for instance 4xV100-32GB, 2x8xH100 (nodes x cards), 8x910B4, p4d.24xlarge or cpu"


def parse(spec: str) -> Machine:
    """The machine that a spec names; `InvalidInput` or `UnknownName` says what is wrong with it."""
    text = spec.strip()
    if not text:
        raise InvalidInput("the machine's spec is empty", hint=_GRAMMAR)
    if len(text) > 200 or not text.isprintable():
        raise InvalidInput(f"not a machine's spec: {text[:40]!r}", hint=_GRAMMAR)
    where, at, price = text.rpartition("@")
    if at:
        return _priced(where, price, text)
    if re.search(r"[,;+&]", _ASIDE.sub("", text)) and not _known(text):
        return _sum(text)
    counts, name = _split(text)
    return _machine(counts, name, text)


def in_nodes(spec: str) -> Machine:
    """The machine of a spec; a count above what the usual node holds is of several, 1x16xH100 is one."""
    machine = parse(spec)
    each, (counts, _) = machine.card.per_node, _split(spec.rpartition("@")[0].strip() or spec.strip())
    if len(counts) != 1 or machine.origin != "named" or machine.cards <= each or machine.cards % each:
        return machine
    nodes, name = machine.cards // each, machine.card.name
    whole = f"{nodes} nodes of {each}: say 1x{machine.cards}x{name} for one"
    note = f"taken as {nodes} machines: one holds one {name}" if each == 1 else f"taken as {whole}"
    return replace(machine, cards_per_node=each, nodes=nodes, network=machine.card.network,
                   notes=(*machine.notes, note))  # fmt: skip


def _priced(where: str, price: str, text: str) -> Machine:
    """A machine at the caller's own price: dollars an hour for all of it."""
    machine = parse(where)
    try:
        usd = float(price)
    except ValueError:
        usd = -1.0
    on_terms = instances.on_terms(machine, price) if usd < 0 else None
    if on_terms is not None:
        return on_terms
    if (
        usd < 0
        and re.fullmatch(r"[a-z][a-z0-9-]+", price.strip().lower())
        and instances.knows(machine.origin)
    ):
        known = " and ".join(instances.terms(machine)) or "on-demand alone"
        hint = f"{known} of it is listed; or say the dollars an hour: {where}@12.5"
        raise InvalidInput(f"no {_short(price.strip())} price of {machine.origin} is listed", hint=hint)
    if not 0 <= usd < MOST_USD:
        hint = "8x910B4@12.5 is 12.5 $ an hour for all 8; p5.48xlarge@reserved is priced as reserved"
        raise InvalidInput(f"not a price: {_short(text)!r}", hint=hint)
    return replace(machine, rent=Rent(usd, cards=machine.cards, share=1.0, source=GIVEN))


def _known(name: str) -> bool:
    return instances.knows(name) or name.strip().lower() in {"cpu", "any"} or catalogue.knows(name)


def _split(text: str) -> tuple[list[int], str]:
    """Counts in front, and the name. A name may itself begin like a count (7900XTX), so names go first."""
    counts: list[int] = []
    rest = text
    while not _known(rest):
        match = _COUNT.match(rest) or _unmarked(rest)
        if match is None:
            break
        counts.append(_count(match.group(1), text))
        rest = match.group(2)
    return counts, rest.strip()


def _unmarked(text: str) -> re.Match[str] | None:
    """A count without a sign behind it, before the name of a card."""
    match = _UNMARKED.match(text)
    return match if match and _known(match[2]) else None


def _count(word: str, text: str) -> int:
    if not word.isascii() or not word.isdigit() or int(word) == 0:
        raise InvalidInput(f"{_short(text)!r}: a count must be a whole number above 0, not {word[:20]}")
    return int(word) if len(word) < 10 else 10**9


def _machine(counts: list[int], name: str, text: str) -> Machine:
    if not name:
        raise InvalidInput(f"{_short(text)!r} names no card", hint=_GRAMMAR)
    if len(counts) > 2:
        raise InvalidInput(f"{_short(text)!r} has {len(counts)} counts, at most nodes x cards", hint=_GRAMMAR)
    if instances.knows(name):
        return _instances(counts, name, text)
    per_node = counts[-1] if counts else 1
    nodes = counts[0] if len(counts) == 2 else 1
    _bound(nodes, per_node, text)
    return _of_cards(name, per_node, nodes)


def _of_cards(name: str, per_node: int, nodes: int) -> Machine:
    if name.lower() == "cpu":
        return _host(per_node, nodes)
    if name.lower() == "any":
        raise InvalidInput("'any' is no single machine", hint="only the planner's --gpus takes it")
    try:
        found, notes = catalogue.resolve(name)
    except UnknownName as error:
        backwards = re.fullmatch(r"(.+?)\s*[xX×*:]\s*([0-9]+)", name)
        if backwards and _known(backwards[1]):
            raise InvalidInput(
                f"{_short(name)!r}: the count goes first: {backwards[2]}x{backwards[1]}"
            ) from error
        if "." in name:
            raise instances.unknown(name) from error
        raise
    network = found.network if nodes > 1 else None
    if "-MIG-" in found.name and per_node * nodes > 1:
        hint = f"plan 1x{found.name}, and start a copy on each"
        raise InvalidInput("an engine sees one MIG slice, and slices do not work together", hint=hint)
    return Machine(found, per_node * catalogue.dies(name), nodes, network=network, notes=notes)


def _host(per_node: int, nodes: int) -> Machine:
    from memserve.hardware.detection import host

    if per_node * nodes != 1:
        raise InvalidInput("cpu takes no count: it is the machine at hand", hint="say cpu or CPU-256GB")
    return replace(host.machine(), origin="named")


def _instances(counts: list[int], name: str, text: str) -> Machine:
    if len(counts) > 1:
        raise InvalidInput(f"{_short(text)!r}: an instance type takes one count, the nodes: 2xp4d.24xlarge")
    nodes = counts[0] if counts else 1
    _bound(nodes, 1, text)
    return instances.machine(name, nodes)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def _bound(nodes: int, per_node: int, text: str) -> None:
    if per_node > MOST_CARDS_PER_NODE or nodes > MOST_NODES:
        raise InvalidInput(
            f"{_short(text)!r} is more than {MOST_NODES} nodes of {MOST_CARDS_PER_NODE} cards", hint=_GRAMMAR
        )


def _sum(text: str) -> Machine:
    """`2xL4,2xL4` is one machine of four, `n1-standard-8+1xT4` and `1xRTX4090+256GB` are a host with a card.

    Other sums are refused.
    """
    parts = (_RAM.sub(r"CPU-\1GB", part) for part in re.split(r"[,;+&]", text))
    machines = sorted(map(parse, parts), key=lambda one: one.card.vendor != "cpu")
    first = machines[0]
    if first.card.vendor == "cpu" and [m.card.vendor == "cpu" for m in machines] == [True, False]:
        listed = instances.knows(first.origin)
        told = machines[1] if not listed else replace(
            machines[1], rent=instances.attached(first, machines[1]), origin=first.origin
        )  # fmt: skip
        return replace(told, host_memory=first.host_memory or first.card.memory)
    if any(m.card != first.card or m.nodes != 1 for m in machines):
        kinds = ", ".join(f"{m.cards}x{m.card.name}" for m in machines)
        raise InvalidInput(
            f"mixed cards are not planned ({kinds}): engines give every card an equal share, "
            "so the smallest would bound all",
            hint=f"ask for one kind, for instance {first.cards}x{first.card.name}",
        )
    return replace(first, cards_per_node=sum(m.cards_per_node for m in machines))
