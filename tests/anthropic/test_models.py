"""Newer models refuse settings that older ones take: refused here, before anything is sent."""

from __future__ import annotations

import pytest

import memserve
from memserve import errors

NEW = ["claude-opus-4-7", "claude-opus-4-8-20260601", "claude-opus-5", "claude-sonnet-5", "claude-fable-5"]
MIDDLE = ["claude-opus-4-1-20250805", "claude-sonnet-4-5", "claude-sonnet-4-6", "claude-haiku-4-5-20251001"]
OLD = ["claude-3-haiku-20240307", "claude-sonnet-4-20250514", "claude-opus-4-0", "claude-sonnet-4-0"]


@pytest.mark.parametrize("model", NEW)
def test_a_new_model_takes_no_sampling(model, claude, opened):
    generator = opened(claude.origin, model)
    assert generator.generate("hi", max_tokens=3).text
    assert not {"temperature", "top_p", "top_k"} & set(claude.seen[0].json)
    for setting in ("temperature", "top_p", "top_k"):
        with pytest.raises(errors.Unsupported, match=setting):
            generator.generate("hi", **{setting: 1})


@pytest.mark.parametrize("model", MIDDLE)
def test_a_middle_model_takes_one_sampler(model, claude, opened):
    generator = opened(claude.origin, model)
    assert generator.generate("hi", max_tokens=3, temperature=0.7).text
    with pytest.raises(errors.Unsupported, match="top_p"):
        generator.generate("hi", top_p=0.5)


@pytest.mark.parametrize("model", OLD)
def test_an_old_model_takes_both(model, claude, opened):
    assert opened(claude.origin, model).generate("hi", temperature=0.3, top_p=0.5, top_k=3).text
    assert claude.seen[0].json["top_p"] == 0.5


def test_the_caller_may_know_better(claude, opened):
    opened(claude.origin, "claude-next", sampling=True).generate("hi", temperature=0.3)
    assert claude.seen[0].json["temperature"] == 0.3


@pytest.mark.parametrize(
    "settings",
    [{"seed": 1}, {"logprobs": 1}, {"n": 2}, {"regex": "a"}, {"choices": ["a"]}, {"min_p": 0.1},
     {"temperature": 1.5}, {"truncate": "left"}],
    ids=str,
)  # fmt: skip
def test_what_claude_never_takes(settings, claude, opened):
    with pytest.raises(errors.Unsupported):
        opened(claude.origin).generate("hi", **settings)
    assert claude.seen == []


def test_thinking_needs_a_temperature_of_one(claude, opened):
    generator = opened(claude.origin)
    thinking = {"type": "enabled", "budget_tokens": 1024}
    with pytest.raises(errors.Unsupported, match="thinking"):
        generator.generate("hi", anthropic_thinking=thinking)
    assert generator.generate("hi", temperature=1, anthropic_thinking=thinking).text


def test_a_system_message_in_the_middle_is_refused(claude, opened):
    talk = [{"role": "user", "content": "hi"}, {"role": "system", "content": "be brief"}]
    with pytest.raises(errors.InvalidInput, match="start"):
        opened(claude.origin).generate(talk)


def test_a_key_is_needed():
    with pytest.raises(errors.InvalidInput, match="ANTHROPIC_API_KEY"):
        memserve.generator("claude-haiku-4-5", backend="anthropic")


def test_a_bearer_token_of_the_environment(claude, opened, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", claude.key)
    opened(claude.origin, api_key=None).generate("hi")
    assert claude.seen[0].headers["authorization"] == f"Bearer {claude.key}"
