"""Log-probabilities belong to the tokens that were said."""

import math
from typing import Any

import pytest

from memserve.conformance.asking import BROKEN, answer, heat, need, question, said

NEAR = 0.03
"""Natural log; half precision in another order of arithmetic stays within it."""


def _told(generator: Any, can: Any, top: int = 3) -> Any:
    need(can, "logprobs")
    return answer(generator, question(2), 8, logprobs=min(top, can.logprobs))


def test_every_token_has_a_logprob(generator: Any, can: Any) -> None:
    got = _told(generator, can)
    assert got.logprobs
    need(can, "usage")
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


def test_rivals_are_sorted(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    for entry in _told(generator, can).logprobs:
        rivals = [rival for _, rival in entry.top]
        assert rivals == sorted(rivals, reverse=True)


def test_a_token_has_the_number_that_its_rivals_give_it(generator: Any, can: Any) -> None:
    need(can, "logprobs")
    hot = {"temperature": heat(generator, 1.2)} if can.temperature else {}
    for settings in ({}, hot, hot):
        top = min(20, can.logprobs)
        for entry in answer(generator, question(4), 8, logprobs=top, **settings).logprobs:
            if BROKEN in entry.token:
                continue  # half a character: others look the same
            named = [rival for token, rival in entry.top if token == entry.token]
            worst = entry.top[-1][1] if len(entry.top) >= top else 0.0
            # two tokens may have one spelling: then the chosen one may stand below all that are told
            told = min((abs(entry.logprob - x) for x in named), default=1.0) <= NEAR
            assert told or entry.logprob <= worst + NEAR


def test_temperature_changes_no_logprob(generator: Any, can: Any) -> None:
    """They are of the model's own distribution, so that answers sampled at any temperature compare."""
    need(can, "logprobs", "temperature")
    ways: list[dict[str, Any]] = [{}, {"temperature": heat(generator, 1.7)}, {"temperature": 0.5}]
    if can.top_k:
        ways.append({"temperature": 0.7, "top_k": 1})
    most = min(2, can.logprobs)
    tops = [answer(generator, question(2), 1, logprobs=most, **way).logprobs[0].top for way in ways]
    best = [max(value for _, value in top) for top in tops]  # the chosen token may be told first
    assert all(abs(value - best[0]) <= 4 * NEAR for value in best)


def test_every_sample_has_its_own(generator: Any, can: Any) -> None:
    need(can, "logprobs", "n", "temperature")
    if can.max_n is not None and can.max_n < 2:
        pytest.skip("capability max_n: one sample only")
    hot = {"temperature": heat(generator, 1.3), "n": 2, "logprobs": 0}
    for sample in answer(generator, question(4), 8, **hot).samples:
        spelled = "".join(entry.token for entry in sample.logprobs)
        assert BROKEN in spelled + said(sample) or said(sample).strip() in spelled


def test_ids_of_logprobs_are_the_answers(generator: Any, can: Any) -> None:
    need(can, "returns_token_ids")
    got = _told(generator, can)
    told = [entry.token_id for entry in got.logprobs]
    assert told in (list(got.token_ids), [None] * len(told))


def test_as_many_rivals_as_asked(generator: Any, can: Any) -> None:
    for entry in _told(generator, can).logprobs:
        assert min(3, can.logprobs) <= len(entry.top) <= min(3, can.logprobs) + 1


def test_the_tokens_spell_the_text(generator: Any, can: Any) -> None:
    got = _told(generator, can)
    spelled = "".join(entry.token for entry in got.logprobs)
    if "\ufffd" not in spelled and "\ufffd" not in said(got):
        assert said(got).strip() in spelled


def test_asking_for_logprobs_changes_no_answer(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    assert _told(generator, can).text == answer(generator, question(2), 8).text


def test_no_logprobs_unless_asked(generator: Any) -> None:
    assert answer(generator, question(2), 3).logprobs is None
