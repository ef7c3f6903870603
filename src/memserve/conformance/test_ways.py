"""Every way of asking gives the same answer: in a list, awaited, streamed, all at once, whatever is asked."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

import memserve
from memserve.conformance.asking import (
    answer,
    astreamed,
    awaited,
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
from memserve.protocol import Capabilities

Job = tuple[Any, dict[str, Any]]

TOLERANCE = 0.05
FLAT = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"],
        "additionalProperties": False}  # fmt: skip
TALK = [{"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "The Elbe."},
        {"role": "user", "content": "And another one?"}]  # fmt: skip


def _hot(generator: Any, can: Capabilities, **more: Any) -> dict[str, Any]:
    need(can, "seed", "temperature", *more)
    return {"temperature": heat(generator, 1.2), "seed": 3, "max_tokens": 8, **more}


def _plain(generator: Any, can: Capabilities) -> Job:
    return question(2, 6), {"max_tokens": 11}


def _stopped(generator: Any, can: Capabilities) -> Job:
    need(can, "stop")
    prompt, free = long_answer(generator)
    return prompt, {"max_tokens": 24, "stop": [piece(said(free))]}


def _not_stopped(generator: Any, can: Capabilities) -> Job:
    need(can, "stop")
    return long_answer(generator)[0], {"max_tokens": 9, "stop": ["\u2603 never said"]}


def _seeded(generator: Any, can: Capabilities) -> Job:
    return question(9), _hot(generator, can)


def _seeded_zero(generator: Any, can: Capabilities) -> Job:
    return question(9), {**_hot(generator, can), "seed": 0}


def _top_k(generator: Any, can: Capabilities) -> Job:
    return question(7), _hot(generator, can, top_k=3)


def _top_p(generator: Any, can: Capabilities) -> Job:
    return question(7), _hot(generator, can, top_p=0.1)


def _min_p(generator: Any, can: Capabilities) -> Job:
    return question(7), _hot(generator, can, min_p=0.8)


def _samples(generator: Any, can: Capabilities) -> Job:
    need(can, "n")
    if can.max_n is not None and can.max_n < 2:
        pytest.skip("capability max_n: one sample only")
    return question(5), {**_hot(generator, can), "n": 2}


def _logprobs(generator: Any, can: Capabilities) -> Job:
    need(can, "logprobs")
    return question(6), {"max_tokens": 7, "logprobs": min(2, can.logprobs)}


def _schema(generator: Any, can: Capabilities) -> Job:
    need(can, "schema")
    return question(1), {"max_tokens": 32, "schema": FLAT}


def _choices(generator: Any, can: Capabilities) -> Job:
    need(can, "choices")
    return question(1), {"max_tokens": 24, "choices": ["the river", "a lamp", "seven"]}


def _regex(generator: Any, can: Capabilities) -> Job:
    need(can, "regex")
    return question(1), {"max_tokens": 24, "regex": "[0-9]{3}"}


def _raw(generator: Any, can: Capabilities) -> Job:
    need(can, "raw")
    return memserve.Raw("The capital of France is"), {"max_tokens": 9}


def _ids(generator: Any, can: Capabilities) -> Job:
    need(can, "token_ids")
    return [5, 9, 9, 30, 31, 32, 32, 40], {"max_tokens": 9}


def _talk(generator: Any, can: Capabilities) -> Job:
    need(can, "chat")
    return TALK, {"max_tokens": 9}


KINDS: list[Callable[[Any, Capabilities], Job]] = [
    _plain, _stopped, _not_stopped, _seeded, _seeded_zero, _top_k, _top_p, _min_p, _samples, _logprobs,
    _schema, _choices, _regex, _raw, _ids, _talk,
]  # fmt: skip
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__.strip("_"))


def _job(kind: Any, generator: Any, can: Capabilities) -> Job | None:
    with contextlib.suppress(pytest.skip.Exception):
        return kind(generator, can)  # type: ignore[no-any-return]
    return None


def _used(usage: Any) -> tuple[int | None, int | None]:
    return usage.prompt_tokens, usage.completion_tokens


def _same(one: Any, other: Any) -> None:
    """Equal but for what may differ: the order of arithmetic in numbers, what was cached, ids of requests."""
    assert said(one) == said(other)
    assert (one.finish_reason, one.token_ids) == (other.finish_reason, other.token_ids)
    assert _used(one.usage) == _used(other.usage)
    assert [said(s) for s in one.samples] == [said(s) for s in other.samples]
    pairs = zip(one.logprobs or (), other.logprobs or (), strict=True)
    assert all(a.token == b.token and abs(a.logprob - b.logprob) <= TOLERANCE for a, b in pairs)


@kinds
def test_a_list_says_the_same(generator: Any, can: Capabilities, kind: Any) -> None:
    need(can, "deterministic")
    prompt, settings = kind(generator, can)
    alone = answer(generator, prompt, **settings)
    among = [worded(can, one) for one in (question(11, 14), prompt, question(3, 2), prompt)]
    got = answer(generator, among, **settings)
    assert len(got) == 4
    _same(alone, got[1])
    _same(alone, got[3])


@kinds
def test_awaiting_says_the_same(generator: Any, can: Capabilities, kind: Any) -> None:
    need(can, "deterministic")
    prompt, settings = kind(generator, can)
    _same(answer(generator, prompt, **settings), asyncio.run(awaited(generator, prompt, **settings)))


@kinds
def test_a_stream_says_the_same(generator: Any, can: Capabilities, kind: Any) -> None:
    need(can, "deterministic", "stream")
    prompt, settings = kind(generator, can)
    if "n" in settings or "logprobs" in settings:
        pytest.skip("capability stream: a stream carries one sample and no logprobs")
    whole, pieces = answer(generator, prompt, **settings), streamed(generator, prompt, **settings)
    assert joined(pieces) == said(whole)
    assert [p.finish_reason for p in pieces if p.finish_reason] == [whole.finish_reason]
    if can.usage:
        assert [_used(p.usage) for p in pieces if p.usage] == [_used(whole.usage)]


@kinds
def test_an_awaited_stream_says_the_same(generator: Any, can: Capabilities, kind: Any) -> None:
    need(can, "deterministic", "stream")
    prompt, settings = kind(generator, can)
    if "n" in settings or "logprobs" in settings:
        pytest.skip("capability stream: a stream carries one sample and no logprobs")
    pieces = asyncio.run(astreamed(generator, prompt, **settings))
    assert joined(pieces) == said(answer(generator, prompt, **settings))


def test_all_at_once_say_the_same(generator: Any, can: Capabilities) -> None:
    need(can, "deterministic")
    jobs = [job for kind in KINDS if (job := _job(kind, generator, can))]
    alone = [answer(generator, prompt, **settings) for prompt, settings in jobs]

    async def together() -> list[Any]:
        return list(await asyncio.gather(*(awaited(generator, p, **s) for p, s in jobs)))

    for one, other in zip(alone, asyncio.run(together()), strict=True):
        _same(one, other)


def test_streams_at_once_do_not_mix(generator: Any, can: Capabilities) -> None:
    need(can, "deterministic", "stream")
    prompts = [question(1), question(2), question(3)]

    async def together() -> list[str]:
        return [
            joined(pieces) for pieces in await asyncio.gather(*(astreamed(generator, p, 9) for p in prompts))
        ]

    assert asyncio.run(together()) == [said(answer(generator, prompt, 9)) for prompt in prompts]


# ---------------------------------------------------------------------- stream


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
