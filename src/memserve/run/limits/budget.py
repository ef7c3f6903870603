"""What a run costs, and the budget that stops it in time."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memserve.errors import BudgetSpent, InvalidInput
from memserve.protocol import Usage
from memserve.run.limits.estimate import Tokens
from memserve.speed.prices import Price

_BUDGET = re.compile(r"\$?\s*(\d+(?:\.\d+)?)\s*(usd|\$|k?tok(?:ens)?|mtok(?:ens)?)?", re.IGNORECASE)
_UNITS = {"t": 1.0, "k": 1e3, "m": 1e6}


@dataclass(frozen=True)
class Budget:
    """So many dollars, or so many tokens."""

    amount: float
    unit: str

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}"


def budget(text: str | float) -> Budget:
    """Read "20usd", "$20", 20 or "5mtok"."""
    match = _BUDGET.fullmatch(str(text).strip())
    if not match or float(match[1]) <= 0:
        raise InvalidInput(f"budget {str(text)[:40]!r} is not an amount", hint="write 20usd or 5mtok")
    unit = (match[2] or "usd").lower()
    if unit in ("usd", "$"):
        return Budget(float(match[1]), "usd")
    return Budget(float(match[1]) * _UNITS[unit[0]], "tokens")


def price_of(model: str | None, backend: str | None,
             given: tuple[float, float] | None = None) -> Price | None:  # fmt: skip
    """The caller's own dollars per million (input, output), or the shipped table's; None: nobody knows."""
    from memserve.speed import prices

    if given is not None:
        if min(given) < 0:
            raise InvalidInput(f"a price cannot be negative: {given[0]:g}:{given[1]:g}")
        return prices.Price(model or "", backend or "", given[0], given[1], source="given by the caller")
    return prices.of(model, backend) if model else None


class Spending:
    """Spent and promised money (or tokens), against the budget if there is one."""

    def __init__(self, price: Price | None, limit: Budget | None) -> None:
        if limit and limit.unit == "usd" and price is None:
            raise InvalidInput(
                f"a budget of {limit} needs a price, and none is known for this model",
                hint="pass --price INPUT:OUTPUT in dollars per million tokens, or a budget in tokens",
            )
        self._price = price
        self._limit = limit
        self._spent = 0.0
        self._promised = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is a budget."""
        return self._limit is not None

    def cost(self, usage: Usage) -> float | None:
        """Dollars of one answer, where the price is known and the engine counted."""
        if self._price is None or usage.prompt_tokens is None:
            return None
        cached = min(usage.cached_tokens or 0, usage.prompt_tokens)
        return self._price.of_tokens(usage.prompt_tokens, usage.completion_tokens or 0, cached_tokens=cached)

    def before(self, line: Mapping[str, Any]) -> None:
        """What an answer of an earlier run on this output cost counts too."""
        if self._limit and not line.get("cached"):
            usage = line.get("usage") or {}
            tokens = (usage.get("prompt_tokens") or 0) + (usage.get("completion_tokens") or 0)
            self._spent += (line.get("usd") or 0.0) if self._limit.unit == "usd" else tokens

    def promise(self, tokens: Tokens) -> float:
        """Set aside the most that a request can cost; what to hand to `settle`."""
        amount = self._most(tokens)
        self._promised += amount
        return amount

    def affords(self, tokens: Tokens) -> bool:
        """Whether the budget bears one more, with everything in flight at its worst."""
        return self._limit is None or self._spent + self._promised + self._most(tokens) <= self._limit.amount

    def settle(self, promised: float, usage: Usage | None) -> None:
        """A request came back. An answer that nobody counted is taken at what was promised; None: no bill."""
        self._promised -= promised
        if self._limit is None or usage is None:
            return
        usd = self.cost(usage)
        counted = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0) or None
        actual = usd if self._limit.unit == "usd" else counted
        self._spent += promised if actual is None else actual

    def spent(self) -> BudgetSpent:
        """The error that ends a run whose budget is used up."""
        return BudgetSpent(
            f"the budget of {self._limit} does not bear another request",
            hint="what is answered is kept; raise the budget and run again to go on",
        )

    def _most(self, tokens: Tokens) -> float:
        if self._limit is None:
            return 0.0
        if self._limit.unit == "tokens" or self._price is None:
            return tokens.worst_prompt + tokens.most
        return self._price.of_tokens(tokens.worst_prompt, tokens.most)
