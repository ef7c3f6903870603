"""The sums about inference that users quote, reproduced: `python -m memserve.speed.economics`.

Each line says what is claimed, what comes out, and where the claim holds or fails.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memserve.cli import Parser, say
from memserve.errors import InvalidInput
from memserve.speed import cost

if TYPE_CHECKING:
    from argparse import Namespace

ACTIVE, CARDS, HOURLY, MFU = 100e9, 8, 39.33, 0.30
PEAKS = {"dense bf16": 989.0, "dense fp8": 1979.0, "fp8 with 2:4 sparsity": 3958.0}
"""TFLOPS of one H100 SXM (NVIDIA's datasheet; its headline figures count sparsity)."""


@dataclass(frozen=True)
class Line:
    """One sum."""

    what: str
    usd: float
    unit: str
    remark: str = ""


@dataclass(frozen=True)
class Purchase:
    """What the caller paid, or would, for a machine: nobody else can state it."""

    usd: float
    rent_usd_per_hour: float
    years: float = 4.0
    busy_share: float = 0.5
    watts: float = 8 * 700.0
    usd_per_kwh: float = 0.0


def lines(purchase: Purchase | None = None) -> list[Line]:
    """All sums, in dollars; owning against renting where a purchase is described."""
    return [*_mfu(), *_people(), *_samples(), *(_owning(purchase) if purchase else ())]


def _mfu() -> list[Line]:
    found = []
    for name, peak in PEAKS.items():
        rate = cost.compute_tokens_per_s(active_parameters=ACTIVE, cards=CARDS, peak_tflops=peak, mfu=MFU)
        usd = cost.gpu_usd_per_mtok(usd_per_hour=HOURLY, tokens_per_s=rate)
        remark = "what arithmetic in 16 bit costs"
        if "sparsity" in name:
            remark = "the widely quoted 0.23 $: it needs the sparse FP8 peak, which no dense model reaches"
        elif "fp8" in name:
            remark = "FP8 weights and activations"
        found.append(
            Line(
                f"100 B active, 8xH100 at 39.33 $/h, MFU 0.30, {name} {peak:g} TFLOPS", usd, "$/Mtok", remark
            )
        )
    rate = cost.compute_tokens_per_s(active_parameters=ACTIVE, cards=CARDS, peak_tflops=989, mfu=MFU)
    today = cost.gpu_usd_per_mtok(usd_per_hour=55.04, tokens_per_s=rate)
    remark = "39.33 $/h was an EC2 Capacity Block of 2024; on demand it is 55.04 (2026-07-20)"
    return [*found, Line("the same on demand, dense bf16", today, "$/Mtok", remark)]


def _people() -> list[Line]:
    usd = cost.human_usd_per_mtok(usd_per_hour=16, tokens_per_minute=100)
    return [Line("a human at 16 $/h and 100 tokens a minute", usd, "$/Mtok")]


def _samples() -> list[Line]:
    total = 1000 * 2500
    asked = cost.api_usd(total / 3, total * 2 / 3, usd_per_mtok_input=3, usd_per_mtok_output=15)
    found = [
        Line(
            "1,000 samples of 2,500 tokens, 1:2, at 3/15 $ (an API)",
            asked,
            "$",
            "2,500 is in and out together",
        ),
        Line("one such sample on that API", asked / 1000, "$/sample"),
    ]
    for hourly, where in ((98.0, "at the claimed 98 $/h"), (63.296, "p5en.48xlarge on demand, 2026-07-20")):
        for pace in (4000, 6000):
            what = f"one sample on a rented server, {pace} samples an hour"
            found.append(Line(what, hourly / pace, "$/sample", where))
    return found


def _owning(bought: Purchase) -> list[Line]:
    power = {"watts": bought.watts, "usd_per_kwh": bought.usd_per_kwh}
    owned = cost.owned_usd_per_hour(
        purchase_usd=bought.usd, years=bought.years, busy_share=bought.busy_share, **power
    )
    rent = bought.rent_usd_per_hour
    hours = cost.rent_break_even_hours(purchase_usd=bought.usd, rent_usd_per_hour=rent, **power)
    even = "power alone costs more than the rent" if hours is None else f"even after {hours:,.0f} busy hours"
    what = f"owned for {bought.usd:,.0f} $ over {bought.years:g} years, busy {bought.busy_share:.0%}"
    return [Line(what, owned, "$/h", f"against {rent:g} $/h rented: {even}")]


def render(cny_per_usd: float | None, purchase: Purchase | None = None) -> str:
    """The table, with yuan beside dollars where a rate is given."""
    rows = []
    for line in lines(purchase):
        money = f"{line.usd:,.4f} {line.unit}"
        if cny_per_usd is not None:
            yuan = cost.in_cny(line.usd, cny_per_usd=cny_per_usd)
            money += f"  = {yuan:,.4f} {line.unit.replace('$', 'CNY')}"
        rows.append(f"{line.what}: {money}" + (f"  ({line.remark})" if line.remark else ""))
    return "\n".join(rows)


def main(words: list[str] | None = None) -> int:
    """Print the sums."""
    parser = Parser(prog="python -m memserve.speed.economics", description=__doc__)
    parser.add_argument("--cny-per-usd", type=float, help="yuan for a dollar: no rate is built in")
    parser.add_argument("--purchase-usd", type=float, help="own it for so much, against renting")
    parser.add_argument(
        "--rent-usd-per-hour", type=float, default=55.04, help="p5.48xlarge, 2026-07-20: 55.04"
    )
    parser.add_argument("--years", type=float, default=4.0)
    parser.add_argument("--busy-share", type=float, default=0.5)
    parser.add_argument("--watts", type=float, default=8 * 700.0, help="eight H100 SXM: 5,600")
    parser.add_argument("--usd-per-kwh", type=float, default=0.0)
    try:
        given = parser.parse_args(words)
        print(render(given.cny_per_usd, _bought(given)))
    except InvalidInput as error:
        say(f"memserve.speed.economics: {error}")
        return 2
    return 0


def _bought(given: Namespace) -> Purchase | None:
    if given.purchase_usd is None:
        return None
    return Purchase(
        given.purchase_usd, given.rent_usd_per_hour, given.years, given.busy_share, given.watts,
        given.usd_per_kwh,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
