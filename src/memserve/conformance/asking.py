"""Small words that the tests share: what to ask, and when a test does not apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from memserve.protocol import Capabilities

BROKEN = "\ufffd"
"""What a tokenizer shows of half a character."""
WORDS = [
    "river",
    "stone",
    "lamp",
    "green",
    "seven",
    "window",
    "apple",
    "under",
    "paper",
    "cloud",
    "bridge",
    "salt",
]


def need(can: Capabilities, *fields: str) -> None:
    """Skip, naming the first capability that the backend does not have."""
    for field in fields:
        if not getattr(can, field):
            pytest.skip(f"capability {field}: off")


def question(number: int, length: int = 4) -> str:
    """Different numbers and lengths give different prompts; longer ones have more tokens."""
    words = [WORDS[(number * 5 + i * (number + 3)) % len(WORDS)] for i in range(length)]
    return f"Say something about number {number}: " + " ".join(words)


def mixed(count: int) -> list[str]:
    """Prompts of mixed length, each different."""
    return [question(n, 2 + (n * 7) % 23) for n in range(count)]


def growing(count: int) -> list[str]:
    """Prompts whose token counts grow strictly, so that an answer tells which prompt it belongs to."""
    return ["Repeat:" + " and one more word" * n for n in range(1, count + 1)]


def answer(generator: Any, prompt: Any, max_tokens: int = 12, **settings: Any) -> Any:
    """One greedy answer."""
    return generator.generate(prompt, max_tokens=max_tokens, **settings)


def heat(generator: Any, wanted: float = 1.5) -> float:
    """A temperature that makes answers differ, as far as the backend takes it."""
    most = generator.capabilities.max_temperature
    return wanted if most is None else min(wanted, float(most))


def long_answer(generator: Any, least: int = 6) -> tuple[str, Any]:
    """One prompt and its greedy answer, readable enough at its start to cut a stop string from."""
    for numbers in (range(1), range(1, 6), range(6, 48)):
        prompts = [question(number) for number in numbers]
        for prompt, got in zip(prompts, answer(generator, prompts, 24), strict=True):
            start = (got.text or "")[: least + 2]
            if len(start.strip()) >= least and BROKEN not in start:
                return prompt, got
    pytest.fail("no prompt of 48 gave a readable answer of 24 tokens: is the text returned at all?")


def piece(text: str) -> str:
    """A few characters from inside a text whose first sight is not at its start."""
    whole = text.partition(BROKEN)[0]
    for size in (3, 4, 5, 2, 1):
        for at in range(max(1, len(whole) // 3), len(whole) - size + 1):
            part = whole[at : at + size]
            if part.strip() and text.find(part) > 0:
                return part
    pytest.fail(f"no stop string can be cut from {text!r}")
