"""Dollars of an API's tokens, of rented cards and of people; and what an own service costs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from memserve import files
from memserve.errors import InvalidInput
from memserve.speed.result import number

MILLION = 1_000_000
MOST = 1e30
"""Beyond it a sum may leave the range of floats."""


def api_usd(input_tokens: float, output_tokens: float, *, usd_per_mtok_input: float,
            usd_per_mtok_output: float) -> float:  # fmt: skip
    """What a provider charges for so many tokens at its prices per million."""
    _counts(input_tokens=input_tokens, output_tokens=output_tokens)
    _rates(usd_per_mtok_input=usd_per_mtok_input, usd_per_mtok_output=usd_per_mtok_output)
    return (input_tokens * usd_per_mtok_input + output_tokens * usd_per_mtok_output) / MILLION


def gpu_usd_per_mtok(*, usd_per_hour: float, tokens_per_s: float) -> float:
    """Dollars per million tokens of a rented machine that is kept busy."""
    _rates(usd_per_hour=usd_per_hour, tokens_per_s=tokens_per_s)
    return usd_per_hour / 3600 / tokens_per_s * MILLION


def compute_tokens_per_s(*, active_parameters: float, cards: float, peak_tflops: float, mfu: float) -> float:
    """Tokens per second that arithmetic alone allows: cards x peak x MFU / (2 FLOP x parameters)."""
    _counts(cards=cards)
    _rates(active_parameters=active_parameters, peak_tflops=peak_tflops, mfu=mfu)
    if mfu > 1:
        raise InvalidInput(f"mfu is a fraction of the peak, at most 1, not {mfu:g}", hint="30 % is mfu=0.30")
    return cards * peak_tflops * 1e12 * mfu / (2 * active_parameters)


def human_usd_per_mtok(*, usd_per_hour: float, tokens_per_minute: float) -> float:
    """Dollars per million tokens of a person who reads or writes at a steady pace."""
    return gpu_usd_per_mtok(usd_per_hour=usd_per_hour, tokens_per_s=_paced(tokens_per_minute))


def owned_usd_per_hour(*, purchase_usd: float, years: float, busy_share: float = 1.0, watts: float = 0.0,
                       usd_per_kwh: float = 0.0) -> float:  # fmt: skip
    """Dollars per busy hour of a machine that was bought: its price over its life, and its power."""
    _rates(purchase_usd=purchase_usd, years=years, busy_share=busy_share)
    _counts(watts=watts, usd_per_kwh=usd_per_kwh)
    busy_hours = years * 365 * 24 * busy_share
    return purchase_usd / busy_hours + watts / 1000 * usd_per_kwh


def rent_break_even_hours(*, purchase_usd: float, rent_usd_per_hour: float, watts: float = 0.0,
                          usd_per_kwh: float = 0.0) -> float | None:  # fmt: skip
    """Busy hours after which owning is cheaper than renting; None if power alone costs the rent."""
    _rates(purchase_usd=purchase_usd, rent_usd_per_hour=rent_usd_per_hour)
    _counts(watts=watts, usd_per_kwh=usd_per_kwh)
    saved = rent_usd_per_hour - watts / 1000 * usd_per_kwh
    return purchase_usd / saved if saved > 0 else None


def in_cny(usd: float, *, cny_per_usd: float) -> float:
    """The same sum in yuan, at the rate that the caller gives."""
    _rates(cny_per_usd=cny_per_usd)
    return usd * cny_per_usd


def _paced(tokens_per_minute: float) -> float:
    _rates(tokens_per_minute=tokens_per_minute)
    return tokens_per_minute / 60


def _rates(**values: float) -> None:
    for name, value in values.items():
        number(name, value, above=True, most=MOST)


def _counts(**values: float) -> None:
    for name, value in values.items():
        number(name, value, most=MOST)


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
        rate = compute_tokens_per_s(**row["compute"])
        return gpu_usd_per_mtok(usd_per_hour=row["usd_per_hour"], tokens_per_s=rate)
    if "tokens_per_minute" in row:
        pace = row["tokens_per_minute"]
        return human_usd_per_mtok(usd_per_hour=row["usd_per_hour"], tokens_per_minute=pace)
    if "samples_per_hour" in row:
        return float(row["usd_per_hour"] / row["samples_per_hour"])
    third = row["samples"] * row["tokens"] / 3  # a part read, two parts written
    read, written = row["prices"]
    return api_usd(third, 2 * third, usd_per_mtok_input=read, usd_per_mtok_output=written)


def owning(*, purchase_usd: float, rent_usd_per_hour: float, years: float, busy_share: float, watts: float,
           usd_per_kwh: float) -> Sum:  # fmt: skip
    """A machine that is bought, against the same machine rented."""
    power = {"watts": watts, "usd_per_kwh": usd_per_kwh}
    owned = owned_usd_per_hour(purchase_usd=purchase_usd, years=years, busy_share=busy_share, **power)
    hours = rent_break_even_hours(purchase_usd=purchase_usd, rent_usd_per_hour=rent_usd_per_hour, **power)
    even = "power alone costs more than the rent" if hours is None else f"even after {hours:,.0f} busy hours"
    what = f"owned for {purchase_usd:,.0f} $ over {years:g} years, busy {busy_share:.0%}"
    return Sum(what, owned, "$/h", f"against {rent_usd_per_hour:g} $/h rented: {even}")


@dataclass(frozen=True)
class Stated:
    """A rented server and an API as the caller states them."""

    server: float
    """Dollars an hour of all its cards."""
    active: float
    """Parameters that a token is multiplied with."""
    mfu: float
    cards: float
    peak_tflops: float
    """Of one card."""
    api: tuple[float, float] | None = None
    """Dollars per million tokens in and out."""
    sample: tuple[float, float] = (833.0, 1667.0)
    """Tokens in and out."""
    samples: float | None = None
    """How many are wanted, as of a month's runs."""

    @property
    def usd_per_mtok(self) -> float:
        """Of the server, kept busy."""
        rate = compute_tokens_per_s(
            active_parameters=self.active, cards=self.cards, peak_tflops=self.peak_tflops, mfu=self.mfu
        )
        return gpu_usd_per_mtok(usd_per_hour=self.server, tokens_per_s=rate)

    @property
    def api_usd(self) -> float:
        """Of one sample."""
        read, written = self.api or (0.0, 0.0)
        return api_usd(*self.sample, usd_per_mtok_input=read, usd_per_mtok_output=written)

    def sums(self, purchase_usd: float | None = None) -> Iterator[Sum]:
        """What the server costs; with an API its markup, and where the two are even."""
        here = self.usd_per_mtok
        what = (
            f"{self.active / 1e9:g} B active, {self.cards:g} cards at {self.server:g} $/h, MFU {self.mfu:g}"
        )
        yield Sum(what, here, "$/Mtok", f"{self.peak_tflops:g} TFLOPS a card, every token counted alike")
        own = here * sum(self.sample) / 1e6
        if self.samples is not None:
            yield Sum(f"{self.samples:,.0f} samples on that server", own * self.samples, "$", "kept busy")
        if self.api is None:
            return
        what = f"one sample of {self.sample[0]:g} in, {self.sample[1]:g} out on the API"
        yield Sum(what, self.api_usd, "$/sample", f"{self.api[0]:g} / {self.api[1]:g} $ per Mtok")
        yield Sum("the API's markup over that server", self.api_usd / own, "x", f"{own:.4g} $ a sample there")
        even = self.server / self.api_usd
        yield Sum("even with the API from", even, "samples/h", f"the server can do {self.server / own:,.0f}")
        if self.samples is not None:
            yield Sum(f"{self.samples:,.0f} samples on the API", self.api_usd * self.samples, "$", "")
        if purchase_usd is not None:
            yield Sum(
                "a bought machine is paid after", purchase_usd / self.api_usd, "samples", "power not counted"
            )
