"""max_tokens holds to the token, and the finish reason says so."""

from __future__ import annotations

from typing import Any

import pytest

from memserve.conformance.asking import answer, need, question
from memserve.errors import InvalidInput


@pytest.mark.parametrize("limit", [1, 2, 7, 16])
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
        assert abs(len(one.token_ids) - one.usage.completion_tokens) <= 1
        assert len(one.token_ids) <= 9


def test_token_ids_decode_to_the_text(generator: Any, can: Any, oracle: Any) -> None:
    need(can, "returns_token_ids")
    if oracle is None:
        pytest.skip("capability returns_token_ids: no tokenizer to decode with beside this model")
    got = answer(generator, question(5), 10)
    assert oracle.decode(got.token_ids).strip() == got.text.strip()


@pytest.mark.parametrize("limit", [0, -1, 1.5, "many"])
def test_impossible_limits_are_refused(generator: Any, limit: Any) -> None:
    with pytest.raises(InvalidInput):
        generator.generate("x", max_tokens=limit)
