"""Answers are replayed only where everything that decides them is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from memserve.errors import InvalidInput
from memserve.protocol import Completion
from memserve.run import run


@pytest.fixture
def ask(fake, tmp_path):
    """Ask through one cache file, each time for a new output; the generator tells what was really asked."""
    count = iter(range(100))

    def asked(requests, generator=None):
        generator = generator or fake()
        output = tmp_path / f"answers-{next(count)}.jsonl"
        asked.summary = run(requests, output, generator=generator, cache=tmp_path / "cache.sqlite")
        asked.output = output
        return len(generator.asked)

    return asked


def test_the_same_request_is_replayed_with_everything_but_its_cost(ask, rows):
    ask([{"id": 1, "prompt": "a"}])
    first = rows(ask.output)[0]
    assert ask([{"id": 2, "prompt": "a"}]) == 0
    second = rows(ask.output)[0]
    assert (ask.summary.cached, ask.summary.done, ask.summary.tokens) == (1, 0, 0)
    assert second["cached"] is True
    same = ("text", "finish_reason", "usage", "key")
    assert [first[name] for name in same] == [second[name] for name in same]


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "A"},
        {"max_tokens": 9},
        {"stop": ["x"]},
        {"seed": 1},
        {"top_p": 0.5},
        {"extra": {"openai_user": "u"}},
    ],
)
def test_any_other_setting_is_another_request(ask, change):
    ask([{"prompt": "a"}])
    assert ask([{"prompt": "a", **change}]) == 1


@pytest.mark.parametrize(
    "identity",
    [{"model": "other"}, {"revision": "main"}, {"base_url": "http://elsewhere"}, {"backend": "other"}],
)
def test_another_model_revision_or_place_answers_for_itself(ask, fake, identity):
    ask(["a"])
    generator = fake()
    generator.identity = identity
    assert ask(["a"], generator) == 1


@pytest.mark.parametrize("finish", ["length", "content_filter", None])
def test_abnormal_finishes_are_never_kept(ask, fake, finish):
    ask(["a"], fake({"a": [Completion(text="cut", finish_reason=finish)]}))
    assert ask(["a"]) == 1


def test_an_answer_without_text_is_never_kept(ask, fake):
    ask(["a"], fake({"a": [Completion(text=None, finish_reason="stop")]}))
    assert ask(["a"]) == 1


def test_errors_are_never_kept(ask, fake):
    ask(["a"], fake({"a": [RuntimeError("x")]}))
    assert ask(["a"]) == 1


def test_samples_are_kept_only_with_a_seed(ask):
    ask([{"prompt": "a", "temperature": 0.7}])
    assert ask([{"prompt": "a", "temperature": 0.7}]) == 1
    ask([{"prompt": "a", "temperature": 0.7, "seed": 5}])
    assert ask([{"prompt": "a", "temperature": 0.7, "seed": 5}]) == 0


def test_a_generator_that_does_not_name_its_model_cannot_be_cached(ask, fake):
    generator = fake()
    generator.capabilities = replace(generator.capabilities, model=None)
    with pytest.raises(InvalidInput, match="which model"):
        ask(["a"], generator)


def test_two_runs_share_a_cache_at_once(ask, fake, tmp_path):
    def nested():
        yield "a"
        inner = fake()
        run(["b"], tmp_path / "inner.jsonl", generator=inner, cache=tmp_path / "cache.sqlite")
        yield "c"

    assert ask(nested()) == 2
    assert ask(["a", "b", "c"]) == 0
