"""max_tokens holds to the token, and the finish reason says so."""

from typing import Any

import pytest

import memserve
from memserve.conformance.asking import (
    BROKEN,
    answer,
    long_answer,
    need,
    piece,
    question,
    said,
    streamed,
    worded,
)
from memserve.errors import ContextOverflow, InvalidInput


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


@pytest.mark.parametrize("limit", [0, -1, 1.5, "many"])
def test_impossible_limits_are_refused(generator: Any, limit: Any) -> None:
    with pytest.raises(InvalidInput):
        generator.generate("x", max_tokens=limit)


def test_answers_say_how_they_ended(generator: Any, can: Any) -> None:
    for one in answer(generator, [question(n) for n in range(4)], 6):
        assert one.finish_reason in ("stop", "length", "content_filter", "tool_calls")
        assert one.text is None or isinstance(one.text, str)


# ---------------------------------------------------------------------- context


def _too_long(can: Any) -> str:
    need(can, "context")
    if can.context > 40_000:
        pytest.skip("capability context: too large to overflow in a short test")
    return "word " * (int(can.context) + 16)


def test_an_overflow_raises_with_both_numbers(generator: Any, can: Any) -> None:
    with pytest.raises(ContextOverflow) as caught:
        answer(generator, _too_long(can), 4)
    assert caught.value.limit == can.context
    assert caught.value.tokens is not None
    assert caught.value.tokens > can.context


def test_the_numbers_of_an_overflow_are_the_prompts(generator: Any, can: Any) -> None:
    need(can, "count_tokens")
    text = _too_long(can)
    counted = generator.count_tokens(worded(can, text))
    with pytest.raises(ContextOverflow) as caught:
        answer(generator, text, 4)
    # vLLM's server stops counting where it is too much, and says so
    least = can.context + 1 if "at least" in str(caught.value) else counted
    assert least <= caught.value.tokens <= counted + 4 or not can.max_tokens


def test_a_stream_overflows_too(generator: Any, can: Any) -> None:
    with pytest.raises(ContextOverflow):
        streamed(generator, _too_long(can), 4)


def test_prompt_and_answer_share_the_context(generator: Any, can: Any) -> None:
    need(can, "max_tokens")
    _too_long(can)
    with pytest.raises(ContextOverflow):
        answer(generator, question(1), int(can.context))


def test_an_overflow_in_a_batch_is_that_items_error(generator: Any, can: Any) -> None:
    got = answer(generator, [question(1), _too_long(can)], 4, on_error="return")
    assert got[0].error is None
    assert isinstance(got[1].error, ContextOverflow)
    assert got[1].text is None


def test_an_overflow_is_not_retryable(generator: Any, can: Any) -> None:
    with pytest.raises(ContextOverflow) as caught:
        answer(generator, _too_long(can), 4)
    assert caught.value.retryable is False


@pytest.mark.parametrize("policy", ["left", "middle"])
def test_truncation_is_explicit_and_leaves_room(generator: Any, can: Any, policy: str) -> None:
    need(can, "truncate")
    got = answer(generator, _too_long(can), 4, truncate=policy)
    assert got.error is None
    need(can, "usage")
    assert got.usage.prompt_tokens <= can.context - 4
    assert got.usage.prompt_tokens >= can.context * 7 // 8


@pytest.mark.parametrize("policy", ["left", "middle"])
def test_what_fits_is_not_truncated(generator: Any, can: Any, policy: str) -> None:
    need(can, "truncate")
    whole, got = answer(generator, question(3), 6), answer(generator, question(3), 6, truncate=policy)
    assert got.usage.prompt_tokens == whole.usage.prompt_tokens
    assert said(got) == said(whole) or not can.deterministic


def test_truncating_left_keeps_the_end(generator: Any, can: Any) -> None:
    need(can, "truncate", "deterministic", "token_ids")
    if can.context > 4096:
        pytest.skip("capability context: too large to overflow in a short test")
    end = [20 + n % 200 for n in range(int(can.context) - 4)]
    kept = answer(generator, [19] * 8 + [18] * 8 + end, 4, truncate="left")
    other = answer(generator, [17] * 8 + [16] * 8 + end, 4, truncate="left")
    assert kept.text == other.text


def test_truncating_the_middle_keeps_both_ends(generator: Any, can: Any) -> None:
    need(can, "truncate", "deterministic", "token_ids", "logprobs")
    if can.context > 4096:
        pytest.skip("capability context: too large to overflow in a short test")
    half = int(can.context) // 2
    head, tail = ([start + n % 150 for n in range(half)] for start in (20, 30))

    def told(first: int, middle: int) -> list[float]:
        ids = [first, *head, *[middle] * 20, *tail]
        got = answer(generator, ids, 4, truncate="middle", logprobs=0)
        return [entry.logprob for entry in got.logprobs]

    same, other = told(19, 16), told(19, 17)
    assert same == pytest.approx(other, abs=0.02), "the middle is cut"
    assert told(18, 16) != pytest.approx(same, abs=1e-9), "the beginning stays"


def test_a_prompt_that_just_fits_is_answered(generator: Any, can: Any) -> None:
    need(can, "context", "count_tokens", "max_tokens")
    if can.context > 4096:
        pytest.skip("capability context: too large to fill in a short test")
    text, room = "x", int(can.context) - 3
    for more in (" word" * 64, " word" * 8, " word"):
        while generator.count_tokens(worded(can, text + more)) <= room:
            text += more
    assert answer(generator, text, 3).error is None


def test_counted_tokens_are_the_tokens_used(generator: Any, can: Any) -> None:
    need(can, "count_tokens", "usage")
    talk = [{"role": role, "content": question(6, 9)} for role in ("user", "assistant", "user")]
    raw = memserve.Raw(question(6, 20))
    for prompt in (worded(can, question(6, 20)), *[talk] * can.chat, *[raw] * can.raw):
        assert generator.count_tokens(prompt) == answer(generator, prompt, 2).usage.prompt_tokens


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
