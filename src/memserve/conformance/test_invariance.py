"""Batch invariance: an answer does not depend on its neighbours or on how many there are."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import memserve
from memserve.conformance.asking import (
    answer,
    awaited,
    common,
    growing,
    heat,
    long_answer,
    mixed,
    need,
    piece,
    question,
    said,
    worded,
)
from memserve.errors import MemserveError

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


# ---------------------------------------------------------------------- isolation


async def _at_once(generator: Any, jobs: list[tuple[Any, dict[str, Any]]]) -> list[Any]:
    return list(await asyncio.gather(*(awaited(generator, p, **s) for p, s in jobs)))


def test_each_request_keeps_its_max_tokens(generator: Any, can: Any) -> None:
    need(can, "max_tokens")
    limits = [1, 9, 3, 6]
    jobs = [(question(n, 3 + n), {"max_tokens": limit}) for n, limit in enumerate(limits)]
    got = asyncio.run(_at_once(generator, jobs))
    alone = [answer(generator, p, **s).usage.completion_tokens for p, s in jobs]
    for one, limit, count in zip(got, limits, alone, strict=True):
        used = one.usage.completion_tokens
        assert used is None or used <= limit
        if generator.capabilities.deterministic:
            assert used == count


def test_each_request_keeps_its_stop(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    stop = piece(free.text)
    cutting: dict[str, Any] = {"max_tokens": 24, "stop": [stop]}
    jobs = [(prompt, cutting), (prompt, {"max_tokens": 24})]
    cut, whole = asyncio.run(_at_once(generator, jobs))
    assert whole.text == free.text
    assert cut.text == free.text[: free.text.find(stop)]


def test_sampling_beside_greedy_leaves_greedy_alone(generator: Any, can: Any) -> None:
    need(can, "deterministic", "temperature")
    prompt = question(6)
    alone = answer(generator, prompt, 10).text
    hot = {"max_tokens": 10, "temperature": heat(generator)}
    got = asyncio.run(_at_once(generator, [(prompt, hot), (prompt, {"max_tokens": 10}), (prompt, hot)]))
    assert got[1].text == alone


def test_each_request_keeps_its_seed(generator: Any, can: Any) -> None:
    need(can, "seed", "temperature", "deterministic")
    prompt = question(7)
    settings: list[dict[str, Any]] = [
        {"max_tokens": 8, "temperature": 1.0, "seed": seed} for seed in (11, 12, 13)
    ]
    alone = [answer(generator, prompt, **s).text for s in settings]
    together = asyncio.run(_at_once(generator, [(prompt, s) for s in settings]))
    assert [one.text for one in together] == alone


def test_threads_do_not_mix_answers(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    prompts = [question(n) for n in range(4)]
    alone = [answer(generator, prompt, 6).text for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda prompt: answer(generator, prompt, 6).text, prompts))
    assert together == alone


def test_one_failure_spares_its_neighbours(generator: Any, can: Any) -> None:
    need(can, "context")
    endless = "word " * (int(can.context) + 8)
    got = answer(generator, [question(1), endless, question(2)], 4, on_error="return")
    assert [one.error is None for one in got] == [True, False, True]
    assert isinstance(got[1].error, MemserveError)
    assert got[1].text is None


# ---------------------------------------------------------------------- order


def _prompt_tokens(answers: list[Any]) -> list[int]:
    counts = [one.usage.prompt_tokens for one in answers]
    if any(count is None for count in counts):
        pytest.skip("capability usage: prompt tokens are not told")
    return counts


def test_one_prompt_gives_one_completion(generator: Any) -> None:
    got = answer(generator, "Name a colour.", 3)
    assert isinstance(got, memserve.Completion)


def test_a_list_gives_a_list(generator: Any) -> None:
    got = answer(generator, ["Name a colour."], 3)
    assert isinstance(got, list)
    assert [type(one) for one in got] == [memserve.Completion]


def test_nothing_gives_nothing(generator: Any) -> None:
    assert generator.generate([]) == []


def test_answers_come_in_the_order_of_their_prompts(generator: Any) -> None:
    counts = _prompt_tokens(answer(generator, growing(10), 2))
    assert counts == sorted(set(counts)), "prompts that grow must have prompt_tokens that grow"


def test_answers_come_in_order_when_the_longest_is_first(generator: Any) -> None:
    counts = _prompt_tokens(answer(generator, growing(10)[::-1], 2))
    assert counts == sorted(set(counts), reverse=True)


def test_many_prompts_come_back_complete(generator: Any) -> None:
    prompts = growing(8) * 33
    got = answer(generator, prompts, 1)
    assert len(got) == len(prompts)
    if generator.capabilities.deterministic:
        assert [one.text for one in got] == [one.text for one in got[:8]] * 33
    counts = _prompt_tokens(got)
    assert counts == counts[:8] * 33


def test_equal_prompts_are_each_answered(generator: Any) -> None:
    got = answer(generator, [question(1)] * 3, 4)
    assert len(got) == 3
    if generator.capabilities.deterministic:
        assert len({one.text for one in got}) == 1


def test_awaited_lists_keep_their_order(generator: Any) -> None:
    got = asyncio.run(awaited(generator, growing(6), 2))
    counts = _prompt_tokens(got)
    assert counts == sorted(set(counts))


def test_prompts_of_all_kinds_may_be_mixed(generator: Any) -> None:
    can, text = generator.capabilities, question(2)
    kinds: list[Any] = [
        text, *[[{"role": "user", "content": text}]] * can.chat, *[memserve.Raw(text)] * can.raw,
    ]  # fmt: skip
    prompts = [worded(can, kind) for kind in kinds]
    got = answer(generator, prompts, 4)
    assert len(got) == len(prompts)
    assert all(one.error is None for one in got)
