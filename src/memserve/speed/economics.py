"""The sums about inference that users quote, reproduced: the claim, what comes out, what it rests on."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from memserve import files
from memserve.speed import cost

OWNING = ("purchase_usd", "rent_usd_per_hour", "years", "busy_share", "watts", "usd_per_kwh")
"""What nobody but the buyer can state."""


class Sum(NamedTuple):
    """One line."""

    what: str
    usd: float
    unit: str
    remark: str = ""


def sums() -> list[Sum]:
    """Every row of data/economics.json, computed."""
    rows = files.table(__file__, "data/economics.json")["sums"]
    return [Sum(row["what"], _usd(row), row["unit"], row["remark"]) for row in rows]


def _usd(row: Mapping[str, Any]) -> float:
    if "compute" in row:
        rate = cost.compute_tokens_per_s(**row["compute"])
        return cost.gpu_usd_per_mtok(usd_per_hour=row["usd_per_hour"], tokens_per_s=rate)
    if "tokens_per_minute" in row:
        pace = row["tokens_per_minute"]
        return cost.human_usd_per_mtok(usd_per_hour=row["usd_per_hour"], tokens_per_minute=pace)
    if "samples_per_hour" in row:
        return float(row["usd_per_hour"] / row["samples_per_hour"])
    third = row["samples"] * row["tokens"] / 3  # a part read, two parts written
    read, written = row["prices"]
    return cost.api_usd(third, 2 * third, usd_per_mtok_input=read, usd_per_mtok_output=written)


def owning(*, purchase_usd: float, rent_usd_per_hour: float, years: float, busy_share: float, watts: float,
           usd_per_kwh: float) -> Sum:  # fmt: skip
    """A machine that is bought, against the same machine rented."""
    power = {"watts": watts, "usd_per_kwh": usd_per_kwh}
    owned = cost.owned_usd_per_hour(purchase_usd=purchase_usd, years=years, busy_share=busy_share, **power)
    hours = cost.rent_break_even_hours(
        purchase_usd=purchase_usd, rent_usd_per_hour=rent_usd_per_hour, **power
    )
    even = "power alone costs more than the rent" if hours is None else f"even after {hours:,.0f} busy hours"
    what = f"owned for {purchase_usd:,.0f} $ over {years:g} years, busy {busy_share:.0%}"
    return Sum(what, owned, "$/h", f"against {rent_usd_per_hour:g} $/h rented: {even}")
