"""Local engines get long lists, and one bad request does not spoil its list."""

from __future__ import annotations

import pytest

from memserve.errors import BadRequest, EngineFailed, InvalidInput
from memserve.run import run


def test_long_lists_grouped_by_settings(lists, out, rows):
    generator = lists()
    asked = [{"prompt": f"p{n}", "max_tokens": 5 if n % 3 else 9} for n in range(1000)]
    assert run(asked, out, generator=generator).done == 1000
    assert [sum(map(len, pair)) for pair in _pairs(generator.calls)] == [8, 64, 128, 256, 512, 32]
    assert {settings["max_tokens"] for _, settings in generator.calls} == {5, 9}
    assert all(row["text"].lower() == f"p{row['index']}" for row in rows(out))


def _pairs(calls):
    """The two lists, one for each set of settings, of every window."""
    lengths = [prompts for prompts, _ in calls]
    return zip(lengths[::2], lengths[1::2], strict=True)


def test_lists_are_shortened_when_they_take_long(lists, out, monkeypatch):
    monkeypatch.setattr("memserve.run.ask.FIRST", 64)
    monkeypatch.setattr("memserve.run.ask.LONG_SECONDS", 0.0)
    monkeypatch.setattr("memserve.run.ask.SHORT_SECONDS", 0.0)
    generator = lists()
    run([f"p{n}" for n in range(150)], out, generator=generator)
    assert [len(prompts) for prompts, _ in generator.calls] == [64, 32, 16, 8, 8, 8, 8, 6]


def test_a_slow_engine_stays_with_the_first_short_lists(lists, out, monkeypatch):
    monkeypatch.setattr("memserve.run.ask.SHORT_SECONDS", 0.0)
    generator = lists()
    run([f"p{n}" for n in range(20)], out, generator=generator)
    assert [len(prompts) for prompts, _ in generator.calls] == [8, 8, 4]


def test_concurrency_is_the_longest_list(lists, out):
    generator = lists()
    run([f"p{n}" for n in range(50)], out, generator=generator, concurrency=8)
    assert max(len(prompts) for prompts, _ in generator.calls) == 8


def test_a_request_that_fails_inside_a_list(lists, out, failed):
    summary = run(["a", "b", "c"], out, generator=lists({"b": BadRequest("odd")}))
    assert (summary.done, summary.failed) == (2, 1)
    assert failed()[0]["id"]


def test_a_request_that_breaks_its_list(lists, out, failed):
    summary = run([f"p{n}" for n in range(10)], out, generator=lists({"p4": ValueError("bug")}))
    assert (summary.done, summary.failed) == (9, 1)
    assert failed()[0]["error"] == "ValueError"


def test_a_broken_engine_ends_the_run_and_keeps_what_came_before(lists, out):
    class Breaking(lists):
        def generate(self, prompts, **settings):
            if len(self.calls) == 2:
                raise EngineFailed("CUDA error")
            return super().generate(prompts, **settings)

    asked = [f"p{n}" for n in range(100)]
    with pytest.raises(EngineFailed):
        run(asked, out, generator=Breaking(), concurrency=10)
    summary = run(asked, out, generator=lists())
    assert (summary.resumed, summary.done) == (18, 82)


def test_rates_are_refused_for_a_local_engine(lists, out):
    with pytest.raises(InvalidInput, match="local engine"):
        run(["a"], out, generator=lists(), rpm=5)
