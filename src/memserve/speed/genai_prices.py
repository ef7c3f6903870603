"""Prices from the optional package `genai-prices`, whose table is wider than the shipped one."""

from collections.abc import Callable, Mapping
from typing import Any

PROBE = 1_000
"""Tokens asked for: few enough that no long-context tier applies."""


def figures(provider: str | None, name: str, called: Mapping[str, str]) -> dict[str, Any] | None:
    """A model's first-tier price in a `Price`'s words; None where genai-prices does not know it either.

    `called`: providers that genai-prices knows under another name.
    """
    from genai_prices import Usage, __version__, calc_price

    def usd(**tokens: int) -> float:
        found = calc_price(Usage(**tokens), name, provider_id=called.get(provider or "", provider))
        return float(found.total_price) * 1_000_000 / PROBE

    try:
        return _priced(provider or "", name, usd, f"genai-prices {__version__}")
    except LookupError:
        return None


def _priced(provider: str, name: str, usd: Callable[..., float], source: str) -> dict[str, Any]:
    return {
        "model": name,
        "provider": provider,
        "input": usd(input_tokens=PROBE),
        "output": usd(output_tokens=PROBE),
        "cached": usd(input_tokens=PROBE, cache_read_tokens=PROBE),
        "source": source,
    }
