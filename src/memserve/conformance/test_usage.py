"""Usage counts what was used: no padding, nothing forgotten."""

from typing import Any

from memserve.conformance.asking import answer, long_answer, need, piece, question


def test_prompt_tokens_are_not_padded(generator: Any, can: Any) -> None:
    need(can, "usage")
    short = question(1, 2)
    alone = answer(generator, short, 2).usage.prompt_tokens
    beside = answer(generator, [short, question(2, 70)], 2)[0].usage.prompt_tokens
    assert alone == beside


def test_completion_tokens_are_not_padded(generator: Any, can: Any) -> None:
    need(can, "usage", "stop", "deterministic")
    prompt, free = long_answer(generator)
    cut: dict[str, Any] = {"max_tokens": 24, "stop": [piece(free.text)]}
    alone = answer(generator, prompt, **cut).usage.completion_tokens
    beside = answer(generator, [prompt, question(5)], **cut)[0].usage.completion_tokens
    assert alone == beside
    assert 1 <= alone < free.usage.completion_tokens


def test_usage_is_told_in_whole_tokens(generator: Any, can: Any) -> None:
    need(can, "usage")
    usage = answer(generator, question(2), 5).usage
    assert isinstance(usage.prompt_tokens, int)
    assert isinstance(usage.completion_tokens, int)
    assert usage.prompt_tokens >= 1
    assert usage.cached_tokens is None or 0 <= usage.cached_tokens <= usage.prompt_tokens


def test_asking_again_costs_the_same_prompt(generator: Any, can: Any) -> None:
    need(can, "usage")
    first, second = (answer(generator, question(3, 30), 2).usage for _ in range(2))
    assert first.prompt_tokens == second.prompt_tokens
    assert first.completion_tokens >= 1
    assert second.completion_tokens >= 1


def test_a_longer_answer_uses_more(generator: Any, can: Any) -> None:
    need(can, "usage")
    need(can, "max_tokens")
    prompts = [question(n) for n in range(3)]
    short, longer = (
        [one.usage.completion_tokens for one in answer(generator, prompts, limit)] for limit in (1, 6)
    )
    assert short == [1, 1, 1]
    assert sum(longer) > sum(short)
