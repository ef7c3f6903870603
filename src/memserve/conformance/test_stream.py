"""A stream says the same as the whole answer, in pieces."""

from __future__ import annotations

import asyncio
from typing import Any

from memserve.conformance.asking import answer, long_answer, need, piece, question


def _pieces(generator: Any, can: Any, prompt: Any, **settings: Any) -> list[Any]:
    need(can, "stream")
    return list(generator.stream(prompt, **settings))


def test_the_pieces_make_the_answer(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    prompt = question(4)
    pieces = _pieces(generator, can, prompt, max_tokens=14)
    assert "".join(p.text for p in pieces) == answer(generator, prompt, 14).text


def test_an_answer_comes_in_more_than_one_piece(generator: Any, can: Any) -> None:
    need(can, "stream")
    prompt, _ = long_answer(generator)
    assert sum(1 for p in _pieces(generator, can, prompt, max_tokens=24) if p.text) > 1


def test_the_end_is_told_once(generator: Any, can: Any) -> None:
    pieces = _pieces(generator, can, question(4), max_tokens=4)
    assert [p.finish_reason for p in pieces if p.finish_reason] in (["stop"], ["length"])


def test_usage_comes_once_and_is_the_answers(generator: Any, can: Any) -> None:
    need(can, "usage")
    pieces = _pieces(generator, can, question(4), max_tokens=4)
    told = [p.usage for p in pieces if p.usage is not None]
    assert len(told) == 1
    whole = answer(generator, question(4), 4).usage
    assert told[0].prompt_tokens == whole.prompt_tokens
    if can.deterministic:
        assert told[0].completion_tokens == whole.completion_tokens


def test_a_stop_string_never_leaks(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic", "stream")
    prompt, free = long_answer(generator)
    stop = piece(free.text)
    pieces = _pieces(generator, can, prompt, max_tokens=24, stop=[stop])
    assert "".join(p.text for p in pieces) == free.text[: free.text.find(stop)]


def test_awaiting_a_stream_says_the_same(generator: Any, can: Any) -> None:
    need(can, "deterministic", "stream")

    async def gather() -> str:
        return "".join([p.text async for p in generator.astream(question(4), max_tokens=8)])

    assert asyncio.run(gather()) == answer(generator, question(4), 8).text


def test_leaving_a_stream_early_leaves_the_engine_usable(generator: Any, can: Any) -> None:
    need(can, "stream")
    stream = generator.stream(question(4), max_tokens=24)
    next(iter(stream))
    stream.close()
    assert answer(generator, question(5), 3).error is None
