"""Tokens and money of a request before its answer is known, corrected by what the answers say."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from memserve.protocol import DEFAULT_MAX_TOKENS, Request, Usage
from memserve.run.requests.item import Item, size

CHARACTERS_PER_TOKEN = 3.0
"""Where a run begins: English has about four, Chinese below two."""
TEMPLATE, PART = 8.0, 1500.0
"""Tokens of a chat template and of an image, before any was counted."""
WEIGHT = 0.1
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

    def of(self, item: Item) -> Tokens:
        """The estimate for one item."""
        parts, characters = measure(item.request)
        kind = (parts, characters.bit_length())
        seen = self._kinds.get(kind)
        most = max(float(limit(item.request)), self._longest * item.request.n * SEEN)
        answer = most if self._answer is None else min(most, self._answer * max(1, item.request.n))
        guess = characters * self._per_character + TEMPLATE + parts * PART
        if seen is None or seen.usual is None:
            worst = UNSEEN * max(guess, guess - TEMPLATE + self._overhead)
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
