"""Greedy repeats itself, a seed repeats itself, and temperature does something."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from memserve.conformance.asking import BROKEN, answer, awaited, common, heat, mixed, need, question, said


def _hot(generator: Any, prompt: Any, **settings: Any) -> Any:
    return answer(generator, prompt, 12, temperature=heat(generator, 1.2), **settings)


def test_greedy_repeats(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    assert len({answer(generator, question(8), 12).text for _ in range(3)}) == 1


def test_the_default_is_greedy(generator: Any, can: Any) -> None:
    need(can, "deterministic", "temperature")
    prompt = question(8)
    assert answer(generator, prompt, 12).text == answer(generator, prompt, 12, temperature=0).text


def test_a_seed_repeats(generator: Any, can: Any) -> None:
    need(can, "seed", "temperature", "deterministic")
    assert len({_hot(generator, question(9), seed=42).text for _ in range(3)}) == 1


def test_a_seed_repeats_in_company(generator: Any, can: Any) -> None:
    need(can, "seed", "temperature", "deterministic")
    prompts = [question(1, 30), question(9), question(2)]
    alone = _hot(generator, prompts[1], seed=42).text
    assert _hot(generator, prompts, seed=42)[1].text == alone


def test_different_seeds_differ(generator: Any, can: Any) -> None:
    need(can, "seed", "temperature")
    assert len({_hot(generator, question(9), seed=seed).text for seed in range(6)}) > 2


def test_a_seed_of_zero_is_a_seed(generator: Any, can: Any) -> None:
    need(can, "seed", "temperature", "deterministic")
    assert len({_hot(generator, question(9), seed=0).text for _ in range(3)}) == 1


def test_temperature_changes_answers(generator: Any, can: Any) -> None:
    need(can, "temperature")
    greedy = answer(generator, question(9), 12).text
    extra = [{"seed": n} if can.seed else {} for n in range(6)]
    hot = {said(answer(generator, question(9), 12, temperature=heat(generator), **more)) for more in extra}
    assert hot - {greedy}


def _mostly_greedy(generator: Any, **settings: Any) -> None:
    """Two tokens may be equally likely, and then either is right: rare only where few are asked for."""
    need(generator.capabilities, "max_tokens")
    prompts = [question(n) for n in range(8)]
    greedy, got = answer(generator, prompts, 4), [_hot(generator, prompt, **settings) for prompt in prompts]
    starts = [said(one).rstrip(BROKEN)[:12] for one in greedy]
    assert sum(said(one).startswith(start) for one, start in zip(got, starts, strict=True)) >= 5


def test_a_tiny_top_p_is_greedy(generator: Any, can: Any) -> None:
    need(can, "top_p", "temperature", "deterministic")
    _mostly_greedy(generator, top_p=1e-6)


def test_top_k_of_one_is_greedy(generator: Any, can: Any) -> None:
    need(can, "top_k", "temperature", "deterministic")
    _mostly_greedy(generator, top_k=1)


def test_a_min_p_of_one_is_greedy(generator: Any, can: Any) -> None:
    need(can, "min_p", "temperature", "deterministic")
    _mostly_greedy(generator, min_p=1.0)


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
