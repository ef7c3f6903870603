"""max_tokens holds to the token, and the finish reason says so."""

from typing import Any

import pytest

import memserve
from memserve.conformance.asking import BROKEN, answer, long_answer, need, piece, question, said
from memserve.errors import InvalidInput


@pytest.mark.parametrize("limit", [1, 2, 7, 16, 40])
def test_max_tokens_holds_to_the_token(generator: Any, can: Any, limit: int) -> None:
    need(can, "usage", "max_tokens")
    for one in answer(generator, [question(n) for n in range(4)], limit):
        used = one.usage.completion_tokens
        assert used <= limit
        assert one.finish_reason == ("length" if used == limit else "stop") or (
            used == limit and one.finish_reason == "stop"
        )
        if one.finish_reason == "length":
            assert used == limit


def test_some_answer_is_cut_by_length(generator: Any, can: Any) -> None:
    need(can, "max_tokens")
    reasons = {one.finish_reason for one in answer(generator, [question(n) for n in range(6)], 2)}
    assert "length" in reasons


def test_a_longer_limit_continues_the_same_answer(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    prompt = question(4)
    short, longer = answer(generator, prompt, 4), answer(generator, prompt, 12)
    if can.returns_token_ids:
        assert longer.token_ids[: len(short.token_ids)] == short.token_ids
    assert longer.text.startswith(short.text.rstrip("\ufffd"))


def test_token_ids_are_as_many_as_the_usage_says(generator: Any, can: Any) -> None:
    need(can, "returns_token_ids", "usage")
    for one in answer(generator, [question(n) for n in range(3)], 9):
        assert all(type(token) is int for token in one.token_ids)
        assert abs(len(one.token_ids) - one.usage.completion_tokens) <= 1
        assert len(one.token_ids) <= 9 or not can.max_tokens


def test_token_ids_decode_to_the_text(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "returns_token_ids")
    if oracle is None:
        pytest.skip("capability returns_token_ids: no tokenizer to decode with beside this model")
    for number in range(6):
        got = answer(generator, question(number), 7 + number)
        told, text = oracle.decode(got.token_ids).rstrip(BROKEN), said(got).rstrip(BROKEN)
        # Some tokenizers drop the space before a first word; nothing else may be lost or added.
        assert text.lstrip(" ") == told.lstrip(" ")
        assert text.startswith(" ") or not told.startswith(" ")


def test_the_prompt_is_no_part_of_the_answer(generator: Any, can: Any) -> None:
    prompts: list[Any] = [question(5, 12)] + [memserve.Raw(question(5, 12))] * can.raw
    for one in answer(generator, prompts, 8):
        assert question(5, 12) not in said(one)


def test_an_answer_whose_end_is_ignored_is_as_long_as_asked(generator: Any, can: Any) -> None:
    need(can, "usage", "max_tokens")
    name = next((name for name in can.extras if name.endswith("_ignore_eos")), None)
    if name is None:
        pytest.skip("capability extras: no setting ignores the end of an answer")
    for one in answer(generator, [question(n) for n in range(4)], 60, extra={name: True}):
        assert (one.finish_reason, one.usage.completion_tokens) == ("length", 60)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "many"])
def test_impossible_limits_are_refused(generator: Any, limit: Any) -> None:
    with pytest.raises(InvalidInput):
        generator.generate("x", max_tokens=limit)


def test_answers_say_how_they_ended(generator: Any, can: Any) -> None:
    for one in answer(generator, [question(n) for n in range(4)], 6):
        assert one.finish_reason in ("stop", "length", "content_filter", "tool_calls")
        assert one.text is None or isinstance(one.text, str)


# ---------------------------------------------------------------------- usage


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
