"""Token prices of API providers: data with a date and a source, and what a call costs by them.

Where `genai-prices` is installed it answers for models that the shipped table does not list.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from memserve import files
from memserve.errors import InvalidInput

if TYPE_CHECKING:
    from memserve.protocol import Usage

MILLION = 1_000_000


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens; None where no source states one."""

    model: str
    provider: str
    input: float
    output: float
    cached: float | None = None
    """Input that the provider read from its prompt cache."""
    cache_write: float | None = None
    batch_input: float | None = None
    batch_output: float | None = None
    caches_from: int | None = None
    """Tokens of a prefix from which the provider caches it unasked; None: never, or unknown."""
    marked_from: int | None = None
    """Tokens of a prefix from which the provider caches what is marked; None: it takes no marks."""
    long: tuple[tuple[str, float], ...] = ()
    """Of prompts of more than `above` tokens: the prices that differ, by name."""
    most_input: int | None = None
    """Prompt tokens that the model takes, where the table says."""
    retires: str | None = None
    source: str = ""
    date: str = ""

    @property
    def usd_per_mtok(self) -> dict[str, float | None]:
        """The prices by what they are for: input, output, cached, batch_input, batch_output."""
        return {
            "input": self.input, "output": self.output, "cached": self.cached,
            "batch_input": self.batch_input, "batch_output": self.batch_output,
        }  # fmt: skip

    def usd(self, usage: Usage, batch: bool = False) -> float:
        """What one answer cost; tokens that the engine did not count are taken as none."""
        return self.of_prompt(usage.prompt_tokens or 0).of_tokens(
            usage.prompt_tokens or 0, usage.completion_tokens or 0, cached_tokens=usage.cached_tokens or 0,
            written_tokens=usage.written_tokens or 0, batch=batch,
        )  # fmt: skip

    def of_tokens(self, input_tokens: float, output_tokens: float, *, cached_tokens: float = 0,
                  written_tokens: float = 0, batch: bool = False) -> float:  # fmt: skip
        """What so many tokens cost. Those read from a cache and those written to it are part of the input.

        In a batch every input token pays the batch price: no source promises both discounts together.
        """
        if min(input_tokens, output_tokens, cached_tokens) < 0 or cached_tokens > input_tokens:
            raise InvalidInput(
                f"token counts must satisfy 0 <= cached <= input, not {cached_tokens} of {input_tokens}"
            )
        if batch:
            return self._batch(input_tokens, output_tokens)
        cached = self.input if self.cached is None else self.cached
        fresh = (input_tokens - cached_tokens) * self.input + cached_tokens * cached
        fresh += written_tokens * ((self.cache_write or self.input) - self.input)
        return (fresh + output_tokens * self.output) / MILLION

    def of_prompt(self, tokens: float) -> Price:
        """The price for a prompt of so many tokens: some providers charge all of a long one more."""
        changed: dict[str, Any] = dict(self.long)
        return replace(self, **changed, long=()) if tokens > changed.pop("above", tokens) else self

    def _batch(self, input_tokens: float, output_tokens: float) -> float:
        if self.batch_input is None:
            raise InvalidInput(f"no batch price of {self.provider}:{self.model} is known")
        output = self.output if self.batch_output is None else self.batch_output
        return (input_tokens * self.batch_input + output_tokens * output) / MILLION


def of(model: str, backend: str | None = None) -> Price | None:
    """The price of `gpt-4o-mini`, `openai:gpt-4o-mini` or `openai/gpt-4o-mini`; None where none is known."""
    provider, name = _split(model, backend)
    found = _table().get((provider, name)) if provider else _anywhere(name)
    dashed = name.replace(".", "-")
    found = found or _dated(provider, name) or _dated(provider, dashed) or _from_genai_prices(provider, name)
    whose, sign, its = name.partition(":")  # a provider that only genai-prices knows: groq:NAME
    return found or (_from_genai_prices(whose, its) if sign and its else None)


def names() -> tuple[str, ...]:
    """Every priced model of the shipped table as `provider:model`."""
    return tuple(f"{row.provider}:{row.model}" for row in dict.fromkeys(_table().values()))


def nearest(name: str) -> list[str]:
    """The priced models whose names are most like a word."""
    from difflib import get_close_matches

    return get_close_matches(name[:60], names(), n=3)


def stamp() -> str:
    """The date of the shipped table."""
    return str(_data()["date"])


def others() -> str:
    """The backend that reaches providers which have none of their own: most speak its protocol."""
    return str(_data()["others"])


def stores() -> list[dict[str, Any]]:
    """Object stores with their classes."""
    return list(_data()["stores"])


def _marked(data: Mapping[str, Any], row: Mapping[str, Any]) -> int | None:
    found = data["caches_marked"].get(row["provider"])
    if found is None or not row.get("cache_write") or re.search(found["but"], row["model"]):
        return None
    return int(found["least_tokens"])


def _split(model: str, backend: str | None) -> tuple[str | None, str]:
    known = {provider for provider, _ in _table()}
    for mark in (":", "/"):
        head, sign, tail = model.partition(mark)
        if sign and head in known:
            return head, tail
    return (backend if backend in known else None), model


def _anywhere(name: str) -> Price | None:
    return next((row for (_, known), row in _table().items() if known == name), None)


def _dated(provider: str | None, name: str) -> Price | None:
    """The newest release of a model that is called by its everyday name, as claude-sonnet-4."""
    everyday = re.escape(name.removesuffix("-latest"))
    release = re.compile(rf"(?:[a-z]+\.){{0,2}}{everyday}-(20\d{{6}}|20\d\d-\d\d-\d\d)(?:-v\d+(?::\d+)?)?")
    found = [
        (match[1], row)
        for (whose, known), row in _table().items()
        if provider in (None, whose) and (match := release.fullmatch(known))
    ]
    return max(found, key=lambda one: one[0])[1] if found else None


@cache
def _data() -> dict[str, Any]:
    return dict(files.table(__file__, "data/prices.json"))


@cache
def _table() -> dict[tuple[str, str], Price]:
    data = _data()
    least = {name: row["least_tokens"] for name, row in data["caches_unasked"].items()}
    rows = [
        Price(
            **{**row, "long": tuple(row.get("long", {}).items())},
            date=data["date"],
            caches_from=least.get(row["provider"]),
            marked_from=_marked(data, row),
        )
        for row in data["rows"]
    ]
    table = {(row.provider, row.model): row for row in rows}
    for alias, model in data["aliases"].items():
        table.update({(row.provider, alias): row for row in rows if row.model == model})
    return table


@cache
def _from_genai_prices(provider: str | None, name: str) -> Price | None:
    if find_spec("genai_prices") is None:
        return None
    from memserve.speed.prices import figures

    found = figures(provider, name, _data()["called"])
    return None if found is None else Price(**found)


PROBE = 1_000
"""Tokens asked for: few enough that no long-context tier applies."""
NOON = 12
"""Hour of the day (UTC) whose price is told, whenever it is asked for: some are cheaper by night."""


def figures(provider: str | None, name: str, called: Mapping[str, str]) -> dict[str, Any] | None:
    """A model's first-tier price in a `Price`'s words; None where genai-prices does not know it either.

    `called`: providers that genai-prices knows under another name.
    """
    from datetime import datetime, timezone

    from genai_prices import Usage, __version__, calc_price

    asked = called.get(provider or "", provider)
    when = datetime.now(timezone.utc).replace(hour=NOON, minute=0, second=0)

    def usd(**tokens: int) -> float:
        found = calc_price(Usage(**tokens), name, provider_id=asked, genai_request_timestamp=when)
        return float(found.total_price) * 1_000_000 / PROBE

    try:
        whose = provider or calc_price(Usage(input_tokens=PROBE), name).provider.id
        return _priced(whose, name, usd, f"genai-prices {__version__}")
    except LookupError:
        return None


def _priced(provider: str, name: str, usd: Callable[..., float], source: str) -> dict[str, Any]:
    return {
        "model": name, "provider": provider, "input": usd(input_tokens=PROBE),
        "output": usd(output_tokens=PROBE), "cached": usd(input_tokens=PROBE, cache_read_tokens=PROBE),
        "source": source,
    }  # fmt: skip
