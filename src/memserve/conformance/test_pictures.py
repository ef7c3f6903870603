"""Pictures are seen, each in its place, whoever asks beside."""

import asyncio
import struct
import zlib
from base64 import b64encode
from http import HTTPStatus
from typing import Any

import pytest

from memserve.conformance.asking import answer, awaited, joined, need, said, streamed
from memserve.errors import BadRequest


def png(number: int, side: int = 64) -> bytes:
    """Two colours."""
    one, other = bytes((number * 40, 255, 0)), bytes((0, number * 36, 255))
    row = b"\0" + one * (side // 2) + other * (side // 2)
    parts = [(b"IHDR", struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(row * side))]
    made = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*parts, (b"IEND", b"")]
    )
    return b"\x89PNG\r\n\x1a\n" + made


def shown(*numbers: int, words: str = "Say what you see.") -> list[dict[str, Any]]:
    """Pictures and words."""
    urls = [f"data:image/png;base64,{b64encode(png(number)).decode()}" for number in numbers]
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": words}]}]


def _answers(generator: Any, prompts: list[Any]) -> list[Any]:
    need(generator.capabilities, "chat", "images")
    try:
        return list(answer(generator, prompts))
    except BadRequest as refused:
        if refused.status != HTTPStatus.BAD_REQUEST:
            raise
        pytest.skip(f"capability images: the model behind this server takes none ({refused})")


def test_another_picture_is_another_prompt(generator: Any) -> None:
    assert len({said(one) for one in _answers(generator, [shown(number) for number in range(6)])}) > 1


def test_every_picture_and_its_place_count(generator: Any) -> None:
    pairs = [(0, 1), (1, 3), (2, 5), (4, 0)]
    there = [said(one) for one in _answers(generator, [shown(*pair) for pair in pairs])]
    back = [said(one) for one in _answers(generator, [shown(*pair[::-1]) for pair in pairs])]
    beside = [said(one) for one in _answers(generator, [shown(first, second + 1) for first, second in pairs])]
    assert there != back
    assert there != beside


def test_company_changes_nothing(generator: Any, can: Any) -> None:
    need(can, "chat", "images", "deterministic")
    prompts = [shown(0), [{"role": "user", "content": "Name a river."}], shown(1, 2), shown(0), shown(3)]
    together = [said(one) for one in _answers(generator, prompts)]
    assert together == [said(*_answers(generator, [prompt])) for prompt in prompts]


def test_streams_and_awaits_see_the_same(generator: Any, can: Any) -> None:
    need(can, "chat", "images", "deterministic")
    prompts = [shown(number) for number in range(4)]
    whole = [said(one) for one in _answers(generator, prompts)]
    assert [said(asyncio.run(awaited(generator, prompt))) for prompt in prompts] == whole
    assert [joined(streamed(generator, prompt)) for prompt in prompts] == whole


def test_pictures_are_counted(generator: Any, can: Any) -> None:
    need(can, "chat", "images", "usage")
    plain = [{"role": "user", "content": [{"type": "text", "text": "Say what you see."}]}]
    none, one, two = (a.usage.prompt_tokens for a in _answers(generator, [plain, shown(0), shown(0, 1)]))
    assert none < one < two
