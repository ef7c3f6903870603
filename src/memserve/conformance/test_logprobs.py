"""Log-probabilities belong to the tokens that were said."""

from __future__ import annotations

import math
from typing import Any

from memserve.conformance.asking import answer, need, question


def _told(generator: Any, can: Any, top: int = 3) -> Any:
    need(can, "logprobs")
    return answer(generator, question(2), 8, logprobs=min(top, can.logprobs))


def test_every_token_has_a_logprob(generator: Any, can: Any) -> None:
    got = _told(generator, can)
    assert got.logprobs
    assert abs(len(got.logprobs) - got.usage.completion_tokens) <= 1
    if can.returns_token_ids:
        assert len(got.logprobs) == len(got.token_ids)


def test_logprobs_are_logs_of_probabilities(generator: Any, can: Any) -> None:
    for entry in _told(generator, can).logprobs:
        assert math.isfinite(entry.logprob)
        assert entry.logprob <= 1e-4
        assert sum(math.exp(rival) for _, rival in entry.top) <= 1.001


def test_the_greedy_token_is_the_likeliest(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    for entry in _told(generator, can).logprobs:
        assert entry.logprob >= max(rival for _, rival in entry.top) - 0.02


def test_as_many_rivals_as_asked(generator: Any, can: Any) -> None:
    for entry in _told(generator, can).logprobs:
        assert min(3, can.logprobs) <= len(entry.top) <= min(3, can.logprobs) + 1


def test_the_tokens_spell_the_text(generator: Any, can: Any) -> None:
    got = _told(generator, can)
    spelled = "".join(entry.token for entry in got.logprobs)
    if "\ufffd" not in spelled and "\ufffd" not in got.text:
        assert got.text.strip() in spelled


def test_asking_for_logprobs_changes_no_answer(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    assert _told(generator, can).text == answer(generator, question(2), 8).text


def test_no_logprobs_unless_asked(generator: Any) -> None:
    assert answer(generator, question(2), 3).logprobs is None
