"""Small words that the tests share: what to ask, and when a test does not apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from memserve.protocol import Capabilities

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


def long_answer(generator: Any, least: int = 6, **settings: Any) -> tuple[str, Any]:
    """A prompt and its readable greedy answer, long enough to cut a stop string from."""
    for number in range(12):
        prompt = question(number)
        got = answer(generator, prompt, 24, **settings)
        if got.text and len(got.text.strip()) >= least and "\ufffd" not in got.text:
            return prompt, got
    pytest.fail("no prompt of twelve gave a readable answer of 24 tokens: is the text returned at all?")


def piece(text: str) -> str:
    """Three characters from the middle of a text whose first sight is not at its start."""
    for size in (3, 4, 5, 2):
        for at in range(max(1, len(text) // 3), len(text) - size + 1):
            part = text[at : at + size]
            if part.strip() and text.find(part) > 0:
                return part
    pytest.fail(f"no stop string can be cut from {text!r}")
