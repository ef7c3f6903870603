"""Batch invariance: an answer does not depend on its neighbours or on how many there are."""

import asyncio
from typing import Any

import pytest

from memserve.conformance.asking import answer, awaited, common, mixed, need, question, said

TOLERANCE = 0.05
"""Natural log; float16 and bfloat16 kernels of different batch shapes stay within it."""


def test_a_batch_answers_as_one_by_one(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    prompts = mixed(8)
    together = [one.text for one in answer(generator, prompts, 12)]
    alone = [answer(generator, prompt, 12).text for prompt in prompts]
    assert together == alone


def test_a_long_neighbour_changes_nothing(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    short = question(3, 2)
    alone = answer(generator, short, 10)
    beside = answer(generator, [question(9, 60), short], 10)[1]
    assert beside.text == alone.text


def test_position_in_the_batch_changes_nothing(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    prompts = mixed(5)
    forward = [one.text for one in answer(generator, prompts, 8)]
    backward = [one.text for one in answer(generator, prompts[::-1], 8)]
    assert forward == backward[::-1]


def test_logprobs_do_not_depend_on_company(generator: Any, can: Any) -> None:
    need(can, "deterministic", "logprobs")
    prompts = [question(4, 3), question(5, 40)]
    together = answer(generator, prompts, 6, logprobs=0)[0].logprobs
    alone = answer(generator, prompts[0], 6, logprobs=0).logprobs
    worst = max(abs(a.logprob - b.logprob) for a, b in zip(together, alone, strict=True))
    assert worst <= TOLERANCE


@pytest.mark.parametrize("count", [2, 3, 5, 9, 17, 33])
def test_batches_of_any_size_answer_as_one_by_one(generator: Any, can: Any, count: int) -> None:
    need(can, "deterministic")
    prompts = [question(n, 2 + n % 5) for n in range(count)]
    alone = [answer(generator, prompt, 5) for prompt in prompts]
    together = answer(generator, prompts, 5)
    for one, other in zip(alone, together, strict=True):
        assert (one.text, one.token_ids, one.usage.prompt_tokens) == (
            other.text,
            other.token_ids,
            other.usage.prompt_tokens,
        )


def test_answers_of_unequal_length_keep_their_places(generator: Any, can: Any) -> None:
    need(can, "deterministic", "stop")
    prompts = mixed(6)
    stop = [common([said(one) for one in answer(generator, prompts, 16)])]
    alone = [answer(generator, prompt, 16, stop=stop) for prompt in prompts]
    told = asyncio.run(awaited(generator, prompts, 16, stop=stop))
    for got in (answer(generator, prompts, 16, stop=stop), told):
        assert [one.text for one in got] == [one.text for one in alone]
        assert [one.usage.completion_tokens for one in got] == [one.usage.completion_tokens for one in alone]


def test_awaiting_answers_as_calling(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    prompts = mixed(4)
    called = [answer(generator, prompt, 8).text for prompt in prompts]
    told = asyncio.run(awaited(generator, prompts, 8))
    assert [one.text for one in told] == called
