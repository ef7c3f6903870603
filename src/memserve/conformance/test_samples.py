"""n samples are n, independent, and all paid for in the usage."""

from __future__ import annotations

from typing import Any

from memserve.conformance.asking import answer, heat, need, question


def _many(can: Any) -> int:
    return min(4, can.max_n or 4)


def _samples(generator: Any, can: Any) -> Any:
    need(can, "n", "temperature")
    n = _many(can)
    more = {"seed": 5} if can.seed else {}
    return generator.generate(question(3), max_tokens=8, temperature=heat(generator, 1.3), n=n, **more)


def test_n_gives_n_samples(generator: Any, can: Any) -> None:
    got = _samples(generator, can)
    assert len(got.samples) == _many(can)
    assert all(isinstance(sample.text, str) for sample in got.samples)


def test_the_first_sample_is_the_answer(generator: Any, can: Any) -> None:
    got = _samples(generator, can)
    assert (got.text, got.finish_reason) == (got.samples[0].text, got.samples[0].finish_reason)


def test_samples_are_independent(generator: Any, can: Any) -> None:
    assert len({sample.text for sample in _samples(generator, can).samples}) > 1


def test_every_sample_is_counted(generator: Any, can: Any) -> None:
    need(can, "usage")
    got = _samples(generator, can)
    single = answer(generator, question(3), 8)
    assert got.usage.prompt_tokens == single.usage.prompt_tokens
    if can.returns_token_ids:
        assert abs(got.usage.completion_tokens - sum(len(s.token_ids) for s in got.samples)) <= 4
    else:
        assert got.usage.completion_tokens >= _many(can)


def test_one_sample_needs_no_list(generator: Any, can: Any) -> None:
    got = answer(generator, question(3), 4)
    assert len(got.samples) <= 1
