"""A prompt that does not fit is an error with both numbers, never an answer."""

from typing import Any

import pytest

import memserve
from memserve.conformance.asking import answer, need, question, said, streamed, worded
from memserve.errors import ContextOverflow


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
