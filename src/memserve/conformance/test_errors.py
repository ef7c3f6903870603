"""Errors are typed, say whether a retry can help, and come where the caller asked for them."""

import asyncio
from typing import Any

import pytest

import memserve
from memserve.conformance.asking import answer, awaited, question, said, streamed
from memserve.errors import InvalidInput, MemserveError, UnknownName


def test_an_unknown_backend_is_named_with_its_neighbours(target: Any) -> None:
    with pytest.raises(UnknownName) as caught:
        memserve.generator("x", backend=f"{target.backend}x")
    assert str(target.backend) in str(caught.value)


def test_a_model_that_is_not_there_is_a_typed_error(target: Any, can: Any) -> None:
    if target.folder is None:
        pytest.skip("capability model: not a folder, so a missing one cannot be asked for")
    with pytest.raises(MemserveError) as caught:
        memserve.generator(str(target.folder / "not-there"), backend=target.backend, **target.options)
    assert "not-there" in str(caught.value)


def test_malformed_prompts_are_refused(generator: Any) -> None:
    prompts: list[Any] = [None, 7, {"role": "user"}, [{"role": "user"}], [3.5]]
    for prompt in prompts:
        with pytest.raises((InvalidInput, TypeError)):
            generator.generate(prompt, max_tokens=2)


def test_returned_errors_are_the_ones_that_would_be_raised(generator: Any, can: Any) -> None:
    endless = _endless(can)
    (returned,) = answer(generator, [endless], 2, on_error="return")
    with pytest.raises(MemserveError) as caught:
        answer(generator, [endless], 2)
    assert type(returned.error) is type(caught.value)
    assert isinstance(returned.error.retryable, bool)


def _endless(can: Any) -> str:
    if not can.context or can.context > 40_000:
        pytest.skip("capability context: nothing to overflow")
    return "word " * (int(can.context) + 16)


def test_one_prompt_keeps_its_error_too(generator: Any, can: Any) -> None:
    got = answer(generator, _endless(can), 2, on_error="return")
    assert isinstance(got.error, MemserveError)
    assert not got.text


def test_awaited_errors_come_where_they_were_asked_for(generator: Any, can: Any) -> None:
    endless = _endless(can)
    one = asyncio.run(awaited(generator, endless, 2, on_error="return"))
    good, bad = asyncio.run(awaited(generator, [question(1), endless], 2, on_error="return"))
    assert good.error is None
    assert isinstance(one.error, MemserveError)
    assert isinstance(bad.error, MemserveError)
    for prompt in (endless, [question(1), endless]):
        with pytest.raises(MemserveError):
            asyncio.run(awaited(generator, prompt, 2))


def test_a_stream_raises_its_error(generator: Any, can: Any) -> None:
    with pytest.raises(MemserveError):
        streamed(generator, _endless(can), 2)


def test_a_good_answer_has_no_error(generator: Any) -> None:
    assert answer(generator, question(1), 2).error is None


def test_errors_leave_the_engine_usable(generator: Any) -> None:
    before = answer(generator, question(1), 4)
    with pytest.raises(InvalidInput):
        answer(generator, "x", temperature=-5)
    after = answer(generator, question(1), 4)
    assert after.error is None
    assert said(before) == said(after) or not generator.capabilities.deterministic
