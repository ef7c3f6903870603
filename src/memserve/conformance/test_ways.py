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
    long_answer,
    need,
    piece,
    question,
    said,
    streamed,
    worded,
)  # fmt: skip
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
