"""memserve cards: every card that is known, with its memory, speed and links."""

from collections.abc import Sequence
from typing import Any

from memserve import cli
from memserve.hardware.machine import Card, Rent

HEADER = ("card", "vendor", "GiB", "GB/s", "16-bit TFLOPS", "capability", "$/h")


def parser() -> cli.Parser:
    """Every option of the command."""
    made = cli.Parser("cards", __doc__)
    made.add_argument("--json", action="store_true", help="one JSON object")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """0 done, 2 malformed."""
    return cli.answer(lambda: _run(words))


def _run(words: Sequence[str] | None) -> int:
    from memserve.hardware import cards

    found = [card for card in cards() if card.vendor != "cpu"]
    if parser().read(words).json:
        from memserve.plan.page import write_json

        write_json({"schema": 1, "cards": [card_object(card) for card in found]})
    else:
        from memserve.plan.page import Section, write

        title = f"{len(found)} cards are known; --gpus takes 4xV100, 2x8xH100, 1xA100-40GB, ..."
        write([Section(title, style="good"), Section(header=HEADER, rows=tuple(map(_row, found)))])
    return cli.DONE


def card_object(card: Card) -> dict[str, Any]:
    """One card as JSON has it."""
    rent = _rent(card)
    return {
        "name": card.name, "vendor": card.vendor, "memory_gib": round(card.memory / 2**30, 2),
        "memory_measured": card.memory_measured, "nominal_gb": card.nominal_gb,
        "bandwidth_bytes_per_s": card.bandwidth, "flops": dict(card.flops),
        "capability": list(card.capability) if card.capability else None, "soc": card.soc,
        "link": card.link.kind if card.link else None, "usd_per_hour": rent.usd_per_hour,
        "price_source": rent.source or None,
        "sources": list(card.sources), "notes": list(card.notes),
    }  # fmt: skip


def _rent(card: Card) -> Rent:
    """The list price of one such card for an hour, where one is known."""
    from memserve.hardware import Machine, instances

    return instances.rent(Machine(card=card))


def _row(card: Card) -> tuple[str, ...]:
    rate = max(card.flops.get("float16", 0.0), card.flops.get("bfloat16", 0.0))
    capability = ".".join(map(str, card.capability)) if card.capability else card.soc or "-"
    price = _rent(card).usd_per_hour
    return (
        card.name, card.vendor, f"{card.memory / 2**30:.2f}", f"{card.bandwidth / 1e9:.0f}",
        f"{rate / 1e12:{'.0f' if rate >= 1e13 else '.2g'}}" if rate else "-", capability,
        "-" if price is None else f"{price:.2f}",
    )  # fmt: skip


if __name__ == "__main__":
    cli.short(main)
