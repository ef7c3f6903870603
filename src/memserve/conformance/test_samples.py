"""n samples are n, independent, and all paid for in the usage."""

from typing import Any

import pytest

from memserve.conformance.asking import answer, common, heat, need, question, said

ENDS = ("stop", "length", "content_filter", "tool_calls")


def _many(can: Any) -> int:
    need(can, "n")
    if can.max_n is not None and can.max_n < 2:
        pytest.skip("capability max_n: one sample only")
    return min(4, can.max_n or 4)


def _samples(generator: Any, can: Any, number: int = 3) -> Any:
    need(can, "temperature")
    more = {"seed": 5} if can.seed else {}
    return answer(generator, question(number), 8, temperature=heat(generator, 1.3), n=_many(can), **more)


def test_n_gives_n_samples(generator: Any, can: Any) -> None:
    got = _samples(generator, can)
    assert len(got.samples) == _many(can)
    assert all(sample.finish_reason in ENDS for sample in got.samples)


def test_the_first_sample_is_the_answer(generator: Any, can: Any) -> None:
    got = _samples(generator, can)
    assert (got.text, got.finish_reason) == (got.samples[0].text, got.samples[0].finish_reason)


def test_samples_are_independent(generator: Any, can: Any) -> None:
    asked = (_samples(generator, can, number) for number in (3, 4, 5))
    assert any(len({sample.text for sample in got.samples}) > 1 for got in asked)


def test_every_sample_is_counted(generator: Any, can: Any) -> None:
    need(can, "usage")
    got = _samples(generator, can)
    single = answer(generator, question(3), 8)
    assert got.usage.prompt_tokens == single.usage.prompt_tokens
    if can.returns_token_ids:
        assert abs(got.usage.completion_tokens - sum(len(s.token_ids) for s in got.samples)) <= 4
    else:
        assert got.usage.completion_tokens >= _many(can)


def test_seeded_samples_repeat(generator: Any, can: Any) -> None:
    need(can, "seed", "deterministic")
    first, second = (_samples(generator, can) for _ in range(2))
    assert [said(sample) for sample in first.samples] == [said(sample) for sample in second.samples]


def test_max_tokens_bounds_every_sample(generator: Any, can: Any) -> None:
    need(can, "temperature", "max_tokens")
    for limit in (2, 5):
        hot = {"temperature": heat(generator, 1.3), "n": _many(can)}
        got = answer(generator, question(4), limit, **hot)
        assert (got.usage.completion_tokens or 0) <= limit * _many(can)
        for sample in got.samples:
            used = None if sample.token_ids is None else len(sample.token_ids)
            assert used is None or used <= limit
            assert used in (None, limit) or sample.finish_reason == "stop"


def test_stop_cuts_every_sample(generator: Any, can: Any) -> None:
    need(can, "temperature", "stop")
    hot = {"temperature": heat(generator, 1.1), "n": _many(can)}
    stop = common([said(sample) for sample in answer(generator, question(4), 24, **hot).samples])
    for _ in range(3):
        got = answer(generator, question(4), 24, stop=[stop], **hot)
        assert all(stop not in said(sample) for sample in got.samples)


def test_samples_come_in_lists_too(generator: Any, can: Any) -> None:
    need(can, "temperature")
    hot = {"temperature": heat(generator, 1.3), "n": _many(can)}
    got = answer(generator, [question(1), question(2)], 6, **hot)
    assert [len(one.samples) for one in got] == [_many(can)] * 2


def test_greedy_samples_are_as_many(generator: Any, can: Any) -> None:
    got = answer(generator, question(3), 4, n=_many(can))
    assert len(got.samples) == _many(can)
    assert not can.deterministic or len({said(sample) for sample in got.samples}) == 1


def test_one_sample_needs_no_list(generator: Any, can: Any) -> None:
    got = answer(generator, question(3), 4)
    assert len(got.samples) <= 1
