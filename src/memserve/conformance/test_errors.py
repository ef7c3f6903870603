"""Errors are typed, say whether a retry can help, and come where the caller asked for them."""

from __future__ import annotations

from typing import Any

import pytest

import memserve
from memserve.conformance.asking import answer, question
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
    if not can.context or can.context > 40_000:
        pytest.skip("capability context: nothing to overflow")
    endless = "word " * (int(can.context) + 16)
    (returned,) = generator.generate([endless], max_tokens=2, on_error="return")
    with pytest.raises(MemserveError) as caught:
        generator.generate([endless], max_tokens=2)
    assert type(returned.error) is type(caught.value)
    assert isinstance(returned.error.retryable, bool)


def test_a_good_answer_has_no_error(generator: Any) -> None:
    assert answer(generator, question(1), 2).error is None


def test_errors_leave_the_engine_usable(generator: Any) -> None:
    before = answer(generator, question(1), 4)
    with pytest.raises(InvalidInput):
        generator.generate("x", max_tokens=-5)
    after = answer(generator, question(1), 4)
    assert after.error is None
    assert before.text == after.text or not generator.capabilities.deterministic
