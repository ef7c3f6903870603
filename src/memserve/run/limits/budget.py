"""What a run costs: tokens and money before the answers are known, and the budget that stops it in time."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from memserve.errors import BudgetSpent, InvalidInput
from memserve.protocol import DEFAULT_MAX_TOKENS, Request, Usage
from memserve.run.requests import Item, size
from memserve.speed.prices import Price

CHARACTERS_PER_TOKEN = 3.0
"""Where a run begins: English has about four, Chinese below two."""
TEMPLATE, PART = 8.0, 1500.0
"""Tokens of a chat template and of an image, before any was counted."""
DEAREST = 1e9
"""No million tokens costs more dollars."""
WEIGHT = 0.1
MOST_EARLIER = 10_000
"""Answers of earlier runs that teach what such requests cost."""
UNSEEN, SEEN = 1.25, 1.1
"""Before money is promised, a guess is taken so many times as large; so is the worst that was seen."""
_log = logging.getLogger("memserve.run")

Kind = tuple[int, int]
"""Images (or other parts that are no text), and the size of the text within a factor of two."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one request is taken to cost."""

    prompt: float
    answer: float
    worst_prompt: float
    most: float
    """Answer tokens that it will hardly exceed."""
    kind: Kind = (0, 0)

    @property
    def total(self) -> float:
        """Prompt and answer."""
        return self.prompt + self.answer


NOTHING = Tokens(0.0, 0.0, 0.0, 0.0)


@dataclass(slots=True)
class Seen:
    """What answers to one kind of request have said."""

    answers: int = 0
    usual: float | None = None
    """Prompt tokens a character."""
    worst: float = 0.0
    most: float = 0.0
    """Prompt tokens a character, and a request, of the worst."""


@dataclass
class Estimate:
    """Learns for each kind of request: the usual keeps a pace, the worst bounds what may be spent."""

    _kinds: dict[Kind, Seen] = field(default_factory=dict)
    _per_character: float = 1 / CHARACTERS_PER_TOKEN
    _overhead: float = 0.0
    """The most that a prompt has cost beyond what its characters explain."""
    _answer: float | None = None
    _longest: float = 0.0
    """The longest answer of a server that does not keep to max_tokens."""
    least: float = 0.0
    """Prompt tokens of the cheapest answer of earlier runs."""

    def of(self, item: Item) -> Tokens:
        """The estimate for one item."""
        parts, characters = measure(item.request)
        kind = (parts, characters.bit_length())
        seen = self._kinds.get(kind)
        most = max(float(limit(item.request)), self._longest * item.request.n * SEEN)
        answer = most if self._answer is None else min(most, self._answer * max(1, item.request.n))
        guess = characters * self._per_character + TEMPLATE + parts * PART
        if seen is None or seen.usual is None:
            worst = UNSEEN * max(guess, guess - TEMPLATE + self._overhead, self.least)
            return Tokens(guess, answer, worst, most, kind)
        worst = SEEN * max(seen.most, seen.worst * characters)
        return Tokens(seen.usual * max(1, characters), answer, worst, most, kind)

    def answers(self, kind: Kind) -> int:
        """Answers to requests of a kind: each confirms, or corrects, what its like will cost."""
        seen = self._kinds.get(kind)
        return seen.answers if seen else 0

    def learn(self, item: Item, usage: Usage) -> None:
        """Correct by what an engine counted."""
        parts, characters = measure(item.request)
        seen = self._kinds.setdefault((parts, characters.bit_length()), Seen())
        seen.answers += 1
        if usage.prompt_tokens:
            self._learn_prompt(seen, parts, characters, usage.prompt_tokens)
        if usage.completion_tokens is not None:
            self._learn_answer(item.request, usage.completion_tokens)

    def _learn_prompt(self, seen: Seen, parts: int, characters: int, tokens: int) -> None:
        each = tokens / max(1, characters)
        seen.usual = each if seen.usual is None else seen.usual + WEIGHT * (each - seen.usual)
        seen.worst, seen.most = max(seen.worst, each), max(seen.most, float(tokens))
        if not parts:
            self._overhead = max(self._overhead, tokens - characters * self._per_character)

    def _learn_answer(self, request: Request, tokens: int) -> None:
        each = tokens / max(1, request.n)
        self._answer = each if self._answer is None else self._answer + WEIGHT * (each - self._answer)
        if tokens > limit(request) and each > self._longest:
            if not self._longest:
                _log.warning(
                    "the server does not keep to max_tokens: %d asked, %d came", limit(request), tokens
                )
            self._longest = each


def measure(request: Request) -> tuple[int, int]:
    """Parts of a prompt that are no text, and the characters of those that are."""
    prompt = request.prompt
    if not isinstance(prompt, list) or not prompt or not isinstance(prompt[0], Mapping):
        return 0, size(prompt)
    parts = characters = 0
    for message in prompt:
        content = message.get("content")
        if not isinstance(content, list):
            characters += size([message])
            continue
        for part in content:
            text = part.get("text") if isinstance(part, Mapping) else part
            characters += len(text) if isinstance(text, str) else 0
            parts += not isinstance(text, str)
    return parts, characters


def limit(request: Request) -> int:
    """Answer tokens that a request allows at most."""
    return (request.max_tokens or DEFAULT_MAX_TOKENS) * max(1, request.n)


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
    unit = ((match and match[2]) or "usd").lower()
    money = unit in ("usd", "$")
    amount = float(match[1]) * (1.0 if money else _UNITS[unit[0]]) if match else 0.0
    if not 0 < amount < math.inf:
        raise InvalidInput(f"budget {str(text)[:40]!r} is not an amount", hint="write 20usd or 5mtok")
    return Budget(amount, "usd" if money else "tokens")


def price(given: Any) -> tuple[float, float]:
    """Read "0.15:0.60", or two numbers: dollars per million tokens in and out."""
    try:
        both = [float(word) for word in given.split(":")] if isinstance(given, str) else given
    except ValueError:
        both = ()
    two = isinstance(both, list | tuple) and len(both) == 2
    if not two or any(
        isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one < DEAREST for one in both
    ):
        raise InvalidInput(f"a price is IN:OUT, two numbers from 0, not {repr(given)[:40]}",
                           hint="0.15:0.60 is $0.15 and $0.60 per million tokens")  # fmt: skip
    return float(both[0]), float(both[1])


def price_of(model: str | None, backend: str | None,
             given: Any = None) -> Price | None:  # fmt: skip
    """The caller's own dollars per million (input, output), or the shipped table's; None: nobody knows."""
    from memserve.speed import prices

    if given is not None:
        return prices.Price(model or "", backend or "", *price(given), source="given by the caller")
    return prices.of(model, backend) if model else None


def dearest(prices: Iterable[Price]) -> Price | None:
    """The price that no other of them exceeds for a question and an answer of like length."""
    return max(prices, key=lambda price: price.input + price.output, default=None)


_MARKS = ("lost_usd", "lost_tokens")


def _named(lost: Mapping[str, float]) -> dict[str, float]:
    return {mark: round(amount, 8) for mark, amount in lost.items() if round(amount, 8)}


class Spending:
    """Spent and promised money (or tokens), against the budget if there is one."""

    def __init__(self, price: Price | None, limit: Budget | None,
                 each: Mapping[str, Price] | None = None, *, batch: bool = False) -> None:  # fmt: skip
        if limit and limit.unit == "usd" and price is None:
            raise InvalidInput(
                f"a budget of {limit} needs a price, and none is known for this model",
                hint="pass --price INPUT:OUTPUT in dollars per million tokens, or a budget in tokens",
            )
        self._price = price
        self._each = each or {}
        self.batch = batch
        """Whether what is asked now costs a batch's price."""
        self._listed = batch
        """Whether what is on its way stands in a list of its own."""
        self._limit = limit
        self._spent = 0.0
        self._promised = 0.0
        self._lost = dict.fromkeys(_MARKS, 0.0)
        """Charged, and in no file yet: failed attempts that may be billed, answers nobody counted."""
        self._mark = f"lost_{limit.unit}" if limit else ""
        self.owe: Callable[[dict[str, float]], None] = lambda _owed: None
        """Hears what no line says yet: what is lost, and in flight."""
        self._owed: dict[str, float] = {}
        self.estimate = Estimate()
        """What requests have cost, in earlier runs on this output too."""
        self._earlier: dict[Any, Usage] = {}

    @property
    def limited(self) -> bool:
        """Whether there is a budget."""
        return self._limit is not None

    def cost(self, usage: Usage, by: str | None = None) -> float | None:
        """Dollars of one answer, where the price (of whoever answered) is known and the engine counted."""
        price = self._each.get(by) if by and self._each else self._price
        if price is None or usage.prompt_tokens is None:
            return None
        cached = min(usage.cached_tokens or 0, usage.prompt_tokens)
        batch = self.batch and price.batch_input is not None
        return price.of_prompt(usage.prompt_tokens).of_tokens(
            usage.prompt_tokens, usage.completion_tokens or 0, cached_tokens=cached,
            written_tokens=min(usage.written_tokens or 0, usage.prompt_tokens - cached), batch=batch,
        )  # fmt: skip

    def before(self, line: Mapping[str, Any]) -> None:
        """What an answer of an earlier run on this output cost counts too."""
        if not self._limit:
            return
        self.earlier(line, kept=True)
        usage = line.get("usage") or {}
        prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not line.get("cached"):
            tokens = (prompt or 0) + (answer or 0)
            self._spent += (line.get("usd") or 0.0) if self._limit.unit == "usd" else tokens
        if prompt and len(self._earlier) < MOST_EARLIER:
            self._earlier[line["id"]] = Usage(prompt, answer)
            self.estimate.least = min(self.estimate.least or prompt, prompt)

    def earlier(self, row: Mapping[str, Any], *, kept: bool) -> None:
        """What a line, or a failure that may not be `kept`, says that was lost before it was written."""
        for mark in _MARKS:
            lost = row.get(mark)
            if isinstance(lost, float):
                self._spent += lost if mark == self._mark else 0.0
                self._lost[mark] += 0.0 if kept else lost

    def take(self) -> dict[str, float]:
        """What was lost, for the next line to say, so that later runs count it."""
        lost, self._lost = self._lost, dict.fromkeys(_MARKS, 0.0)
        return _named(lost)

    def note(self, *, ended: bool = False) -> None:
        """Tell what no line says yet; nothing is in flight where a run has `ended`."""
        owed = dict(self._lost)
        if self._mark and not (ended or self._listed):
            owed[self._mark] += self._promised
        if (owed := _named(owed)) != self._owed:
            self._owed = owed
            self.owe(owed)

    def answered_before(self, item: Item) -> None:
        """The request of such an answer was read: what its like will cost is known."""
        usage = self._earlier.pop(item.id, None)
        if usage:
            self.estimate.learn(item, usage)

    def promise(self, tokens: Tokens) -> float:
        """Set aside the most that a request can cost; what to hand to `settle`."""
        amount = self._most(tokens)
        self._promised += amount
        self.note()
        return amount

    def affords(self, tokens: Tokens) -> bool:
        """Whether the budget bears one more, with everything in flight at its worst."""
        return self._limit is None or self._spent + self._promised + self._most(tokens) <= self._limit.amount

    def settle(self, promised: float, usage: Usage | None) -> None:
        """A request came back. An answer that nobody counted is taken at what was promised; None: no bill."""
        self._promised -= promised
        if self._limit and usage is not None:
            usd = self.cost(usage)
            counted = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0) or None
            actual = usd if self._limit.unit == "usd" else counted
            self._spent += promised if actual is None else actual
            self._lost[self._mark] += promised if actual is None else 0.0
        self.note()

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
        batch = self.batch and self._price.batch_input is not None
        price = self._price.of_prompt(tokens.worst_prompt)
        return price.of_tokens(tokens.worst_prompt, tokens.most, batch=batch)
