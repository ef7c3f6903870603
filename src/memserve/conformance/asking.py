"""Small words that the tests share: what to ask, and when a test does not apply."""

from typing import Any

import pytest

from memserve.protocol import Capabilities, Delta, Raw

BROKEN = "\ufffd"
"""What a tokenizer shows of half a character."""
WORDS = [
    "river", "stone", "lamp", "green", "seven", "window", "apple", "under", "paper", "cloud", "bridge",
    "salt",
]  # fmt: skip


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


def worded(can: Capabilities, prompt: Any) -> Any:
    """A prompt of words as this backend takes it: a string, or Raw where it only completes texts."""
    if isinstance(prompt, list) and any(isinstance(one, str) for one in prompt):
        return [worded(can, one) for one in prompt]
    if not isinstance(prompt, str) or can.chat:
        return prompt
    if not can.raw:
        pytest.skip("capability chat: off, and raw text is not taken either")
    return Raw(prompt)


def limited(can: Capabilities, max_tokens: int, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with a limit, where the backend takes one."""
    return {"max_tokens": max_tokens, **settings} if can.max_tokens else settings


def answer(generator: Any, prompt: Any, max_tokens: int = 12, **settings: Any) -> Any:
    """One answer, greedy unless the settings say otherwise, or a list of them."""
    can = generator.capabilities
    return generator.generate(worded(can, prompt), **limited(can, max_tokens, settings))


async def awaited(generator: Any, prompt: Any, max_tokens: int = 12, **settings: Any) -> Any:
    """The same, awaited."""
    can = generator.capabilities
    return await generator.agenerate(worded(can, prompt), **limited(can, max_tokens, settings))


def streamed(generator: Any, prompt: Any, max_tokens: int = 12, **settings: Any) -> list[Delta]:
    """The pieces of a streamed answer."""
    can = generator.capabilities
    need(can, "stream")
    return list(generator.stream(worded(can, prompt), **limited(can, max_tokens, settings)))


async def astreamed(generator: Any, prompt: Any, max_tokens: int = 12, **settings: Any) -> list[Delta]:
    """The pieces of an awaited stream."""
    can = generator.capabilities
    deltas = generator.astream(worded(can, prompt), **limited(can, max_tokens, settings))
    return [delta async for delta in deltas]


def said(one: Any) -> str:
    """The text of an answer or a sample; None, where nothing was sent, is no text."""
    return one.text or ""


def joined(pieces: list[Delta]) -> str:
    """The text that the pieces of a stream make."""
    return "".join(piece.text for piece in pieces)


def heat(generator: Any, wanted: float = 1.5) -> float:
    """A temperature that makes answers differ, as far as the backend takes it."""
    most = generator.capabilities.max_temperature
    return wanted if most is None else min(wanted, float(most))


def long_answer(generator: Any, least: int = 6) -> tuple[str, Any]:
    """One prompt and its greedy answer, readable enough at its start to cut a stop string from."""
    found: list[tuple[str, Any]] = []
    for numbers in (range(1), range(1, 6), range(6, 48)):
        prompts = [question(number) for number in numbers]
        for prompt, got in zip(prompts, answer(generator, prompts, 24), strict=True):
            start = said(got)[: least + 2]
            if len(start.strip()) >= least and BROKEN not in start:
                found.append((prompt, got))
                if _inside(said(got)):
                    return prompt, got
    if found:
        return found[0]
    pytest.fail("no prompt of 48 gave a readable answer of 24 tokens: is the text returned at all?")


def piece(text: str) -> str:
    """A few characters from inside a text whose first sight is not at its start."""
    found = _inside(text)
    if found is None:
        pytest.skip(f"capability stop: this model only repeats itself, {text[:12]!r}")
    return found


def _inside(text: str) -> str | None:
    whole = text.partition(BROKEN)[0]
    for size in (3, 4, 5, 2, 1):
        for at in range(max(1, len(whole) // 3), len(whole) - size + 1):
            part = whole[at : at + size]
            if part.strip() and text.find(part) > 0:
                return part
    return None


def common(texts: list[str]) -> str:
    """The character that most of these texts say, to be used as a stop string."""
    letters = [letter for letter in "".join(texts) if letter.strip() and letter != BROKEN]
    if not letters:
        pytest.fail("no answer holds a readable character")
    return max(set(letters), key=lambda letter: sum(letter in text for text in texts))
