"""Order and count: as many answers as prompts, each in its prompt's place."""

import asyncio
from typing import Any

import pytest

import memserve
from memserve.conformance.asking import answer, awaited, growing, question, worded


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
