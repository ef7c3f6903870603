"""Money per token, from the few figures people quote: prices, server hours, MFU, a human's pace."""

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
