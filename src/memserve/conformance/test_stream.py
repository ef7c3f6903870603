"""A stream says the same as the whole answer, in pieces."""

import asyncio
from typing import Any

import pytest

from memserve.conformance.asking import (
    answer,
    heat,
    joined,
    limited,
    long_answer,
    need,
    piece,
    question,
    said,
    streamed,
    worded,
)
from memserve.errors import InvalidInput


def test_the_pieces_make_the_answer(generator: Any, can: Any) -> None:
    need(can, "deterministic", "stream")
    for number in range(6):
        prompt = question(number, 3 + number)
        assert joined(streamed(generator, prompt, 14)) == said(answer(generator, prompt, 14))


def test_characters_are_not_broken_at_the_borders_of_tokens(generator: Any, can: Any) -> None:
    need(can, "deterministic", "stream")
    for prompt in ("Repeat: \u2603 \u00e9\u00e8 \u4e2d\u6587 \U0001f600", "\u5317\u4eac\u662f", question(8)):
        pieces = streamed(generator, prompt, 20)
        assert joined(pieces) == said(answer(generator, prompt, 20))


def test_an_answer_comes_in_more_than_one_piece(generator: Any, can: Any) -> None:
    need(can, "stream")
    prompt, _ = long_answer(generator)
    assert sum(1 for p in streamed(generator, prompt, 24) if p.text) > 1


def test_the_end_is_told_once(generator: Any, can: Any) -> None:
    pieces = streamed(generator, question(4), 4)
    assert [p.finish_reason for p in pieces if p.finish_reason] in (["stop"], ["length"])
    end = next(place for place, p in enumerate(pieces) if p.finish_reason)
    assert joined(pieces[end + 1 :]) == "", "text after the end"


def test_usage_comes_once_and_is_the_answers(generator: Any, can: Any) -> None:
    need(can, "usage")
    pieces = streamed(generator, question(4), 4)
    told = [p.usage for p in pieces if p.usage is not None]
    assert len(told) == 1
    place = next(place for place, p in enumerate(pieces) if p.usage is not None)
    assert joined(pieces[place + 1 :]) == "", "usage comes with the last piece"
    whole = answer(generator, question(4), 4).usage
    assert told[0].prompt_tokens == whole.prompt_tokens
    if can.deterministic:
        assert told[0].completion_tokens == whole.completion_tokens


def test_a_stop_string_never_leaks(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic", "stream")
    prompt, free = long_answer(generator)
    stop = piece(free.text)
    assert joined(streamed(generator, prompt, 24, stop=[stop])) == free.text[: free.text.find(stop)]


def test_awaiting_a_stream_says_the_same(generator: Any, can: Any) -> None:
    need(can, "deterministic", "stream")

    async def gather() -> str:
        return "".join(
            [p.text async for p in generator.astream(worded(can, question(4)), **limited(can, 8, {}))]
        )

    assert asyncio.run(gather()) == answer(generator, question(4), 8).text


def test_leaving_a_stream_early_leaves_the_engine_usable(generator: Any, can: Any) -> None:
    need(can, "stream")
    before = answer(generator, question(5), 6)
    stream = generator.stream(worded(can, question(4)), **limited(can, 24, {}))
    next(iter(stream))
    stream.close()
    after = answer(generator, question(5), 6)
    assert after.error is None
    assert said(after) == said(before) or not can.deterministic


def test_leaving_an_awaited_stream_early_leaves_the_engine_usable(generator: Any, can: Any) -> None:
    need(can, "stream")

    async def leave() -> None:
        stream = generator.astream(worded(can, question(4)), **limited(can, 24, {}))
        async for _ in stream:
            break
        await stream.aclose()

    before = answer(generator, question(5), 6)
    asyncio.run(leave())
    after = answer(generator, question(5), 6)
    assert after.error is None
    assert said(after) == said(before) or not can.deterministic


def test_a_stream_answers_one_prompt(generator: Any, can: Any) -> None:
    need(can, "stream")
    with pytest.raises(InvalidInput):
        list(generator.stream([worded(can, question(1)), worded(can, question(2))], **limited(can, 3, {})))


def test_sampled_streams_vary(generator: Any, can: Any) -> None:
    need(can, "stream", "temperature")
    hot = {"temperature": heat(generator, 1.5)}
    assert len({joined(streamed(generator, question(9), 12, **hot)) for _ in range(6)}) > 1
