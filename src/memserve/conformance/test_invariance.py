"""Batch invariance: an answer does not depend on its neighbours or on how many there are."""

from __future__ import annotations

import asyncio
from typing import Any

from memserve.conformance.asking import answer, mixed, need, question

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


def test_awaiting_answers_as_calling(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    prompts = mixed(4)
    called = [one.text for one in answer(generator, prompts, 8)]
    awaited = asyncio.run(generator.agenerate(prompts, max_tokens=8))
    assert [one.text for one in awaited] == called
