"""What parallel layouts send, what compression gains, and the sums that are quoted, in tables.

memserve speed communication MODEL --cards 8 [--tokens 64] [--train] [--link NVLink4]
memserve speed compression MODEL --gpus 1xA100 [--backend B] [--prune 2:4 channel:0.25]
memserve speed economics [--active 200e9 --mfu 0.3 --server 39.33] [--api 3/15] [--purchase-usd 300000]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from memserve import cli
from memserve.errors import InvalidInput, UnknownName
from memserve.hardware.machine import GIB
from memserve.speed.communication import Traffic
from memserve.speed.compression import Effect
from memserve.speed.cost import Sum
from memserve.speed.result import number

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

Found = list[dict[str, Any]]
Rows = list[tuple[str, ...]]
QUOTED = {"server": 39.33, "active": 100e9, "mfu": 0.3, "cards": 8.0, "peak_tflops": 989.0}
"""The widely quoted server: data/economics.json."""


def communication(given: Namespace) -> tuple[Found, Rows]:
    """Each kind of parallelism over each link, as values and as a table."""
    from memserve.model import load
    from memserve.speed import communication as traffic
    from memserve.speed.roofline import shape

    model = shape.of(load(given.model))
    found = traffic.table(model, given.cards, given.tokens, train=given.train)
    links = sorted({one.link for one in found})
    if given.link is not None and given.link not in links:
        raise UnknownName(f"unknown link {given.link[:40]!r}", hint=f"say {', '.join(links)}")
    head = ("parallelism", "link", "MB a card and step", "messages", "ms", "why")
    found = [one for one in found if given.link in (None, one.link)]
    return list(map(asdict, found)), [head, *map(_traffic, found)]


def _traffic(one: Traffic) -> tuple[str, ...]:
    sizes = (f"{one.bytes / 1e6:.3g}", f"{one.messages:g}", f"{one.seconds * 1e3:.3g}")
    return (one.kind, one.link, *sizes, one.about)


def compression(given: Namespace) -> tuple[Found, Rows]:
    """Each quantization, then what was asked to be pruned."""
    from memserve.hardware import parse
    from memserve.model import load
    from memserve.speed import compression as sizes
    from memserve.speed.roofline import layout

    model, machine = load(given.model), parse(given.gpus)
    backend = given.backend or layout.most_measured()
    load_words = {
        n: getattr(given, n.partition("_")[0]) for n in ("input_tokens", "output_tokens", "concurrency")
    }
    found = sizes.quantizations(model, machine, backend, **load_words)
    found += [sizes.prune(model, machine, backend, pattern, **load_words) for pattern in given.prune]
    head = (
        "method", "parameters", "weights GiB", "ms a token", "tokens/s", "faster", "accuracy, as published",
    )  # fmt: skip
    return list(map(asdict, found)), [head, *(_effect(one, model.id) for one in found)]


def _effect(one: Effect, model: str) -> tuple[str, ...]:
    published = [
        f"{row.original:g} -> {row.compressed:g} {row.benchmark} "
        f"({', '.join(filter(None, (row.by, row.model, row.of(model))))})"
        for row in one.accuracy[:1]
    ]
    return (
        one.method, f"{one.parameters / 1e9:.2f} B", f"{one.weight_bytes / GIB:.2f}",
        "-" if one.refused else f"{one.speed.tpot_ms.likely:.2f}",
        "-" if one.refused else f"{one.speed.output_tokens_per_s.likely:.0f}",
        "-" if one.faster is None else f"x{one.faster:.2f}",
        one.refused or "; ".join([*published, *filter(None, [one.note])]) or _unknown(one),
    )  # fmt: skip


def _unknown(one: Effect) -> str:
    return "" if one.method == "none" else "no published table is known"


def economics(given: Namespace) -> tuple[Found, Rows]:
    """Each quoted sum, with yuan beside dollars where a rate is given."""
    from memserve.speed import cost
    from memserve.speed import cost as quoted

    sums = [*_stated(given), *quoted.sums()]
    if given.purchase_usd is not None:
        sums.append(quoted.owning(**{name: getattr(given, name) for name in quoted.OWNING}))
    rows: Rows = [("what", "costs", "", "remark")]
    for one in sums:
        yuan = ""
        if given.cny_per_usd is not None and "$" in one.unit:
            cny = cost.in_cny(one.usd, cny_per_usd=given.cny_per_usd)
            yuan = f"{cny:,.4f} {one.unit.replace('$', 'CNY')}"
        rows.append((one.what, f"{one.usd:,.4f} {one.unit}", yuan, one.remark))
    return [one._asdict() for one in sums], rows


def _stated(given: Namespace) -> Iterator[Sum]:
    """The sums of a server that the caller states; the quoted one where a flag is left out."""
    from memserve.speed.cost import Stated

    api = None if given.api is None else _prices(given.api)
    words = {name: getattr(given, name) for name in ("server", "active", "mfu", "cards", "peak_tflops")}
    if api is None and given.samples is None and not any(value is not None for value in words.values()):
        return iter(())
    stated = {name: QUOTED[name] if value is None else value for name, value in words.items()}
    sample = _pair(given.sample, "a sample", ":") if given.sample else Stated.sample
    return Stated(**stated, api=api, sample=sample, samples=given.samples).sums(given.purchase_usd)


def _prices(word: str) -> tuple[float, float]:
    """`3/15` or a model that is priced."""
    from memserve.speed import prices

    found = None if word[:1].isdigit() else prices.of(word)
    return (found.input, found.output) if found else _pair(word, "a price", "/")


def _pair(word: str, what: str, mark: str) -> tuple[float, float]:
    first, _, second = word.partition(mark)
    try:
        return number(what, float(first), above=True), number(what, float(second), above=True)
    except ValueError:
        hint = "say IN/OUT in $ per Mtok or a model with a price" if mark == "/" else "say IN:OUT in tokens"
        raise InvalidInput(f"not {what}: {word[:40]!r}", hint=hint) from None


def parser() -> cli.Parser:
    """Every option of the command."""
    parser = cli.Parser("speed", __doc__)
    tables = parser.add_subparsers(required=True, metavar="TABLE")
    _add_communication(tables.add_parser("communication", help="bytes and time per step of each parallelism"))
    _add_compression(tables.add_parser("compression", help="size and speed of quantized and pruned models"))
    _add_economics(tables.add_parser("economics", help="sums that are quoted, and what they rest on"))
    for table in tables.choices.values():
        table.add_argument("--json", action="store_true", help="one JSON object with the figures unrounded")
    return parser


def _add_communication(sent: ArgumentParser) -> None:
    add = sent.add_argument
    sent.set_defaults(table=communication)
    add("model", metavar="MODEL")
    add("--cards", metavar="N", type=int, default=8)
    add("--tokens", metavar="N", type=cli.number, default=64, help="in a step: a batch, a chunk of a prompt")
    add("--train", action="store_true", help="an optimizer step instead of inference")
    add("--link", metavar="L", help="only this one, as NVLink4, PCIe5, HCCS, Ethernet-100G")


def _add_compression(small: ArgumentParser) -> None:
    add = small.add_argument
    small.set_defaults(table=compression)
    add("model", metavar="MODEL")
    add("--gpus", required=True, metavar="SPEC")
    add("--backend", metavar="B", help="default: the one that was measured most")
    prune = "unstructured:0.5, 2:4, channel:0.25, layer:8"
    add("--prune", nargs="+", default=[], metavar="P", help=prune)
    for name, count in (("input", 1024), ("output", 256), ("concurrency", 16)):
        add(f"--{name}", metavar="N", type=cli.number, default=count)


def _add_economics(quoted: ArgumentParser) -> None:
    quoted.set_defaults(table=economics)
    for name, text in (
        ("active", "parameters that a token is multiplied with (100e9)"), ("mfu", "share of the peak (0.3)"),
        ("server", "dollars an hour of all its cards (39.33)"), ("cards", "of the server (8)"),
        ("peak-tflops", "of one card, dense (989)"), ("samples", "that are wanted, as of a month's runs"),
    ):  # fmt: skip
        quoted.add_argument(f"--{name}", metavar="N", type=cli.number, help=text)
    quoted.add_argument("--api", metavar="IN/OUT", help="3/15 ($ per Mtok) or a model: markup and break-even")
    quoted.add_argument("--sample", metavar="IN:OUT", help="tokens of a sample (833:1667)")
    for name, value, text in (
        ("cny-per-usd", None, "yuan for a dollar: no rate is built in"),
        ("purchase-usd", None, "own it for so much, against renting"),
        ("rent-usd-per-hour", 55.04, "p5.48xlarge, 2026-07-20: 55.04"), ("years", 4.0, "of use"),
        ("busy-share", 0.5, "of these years"), ("watts", 5600.0, "eight H100 SXM: 5,600"),
        ("usd-per-kwh", 0.0, "of power"),
    ):  # fmt: skip
        quoted.add_argument(f"--{name}", metavar="N", type=cli.number, default=value, help=text)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table that is asked for; 2 on a malformed call."""
    return cli.answer(lambda: _print(parser().read(words)))


def _print(given: Namespace) -> int:
    found, rows = given.table(given)
    if given.json:
        import json

        print(json.dumps({"schema": 1, "table": given.table.__name__, "rows": found}, ensure_ascii=False))
        return cli.DONE
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return cli.DONE


if __name__ == "__main__":
    cli.short(main)
