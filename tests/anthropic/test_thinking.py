"""Thinking and cache marks on the Messages API."""

from __future__ import annotations

import pytest

from memserve import errors

MARK = {"type": "ephemeral"}
MARKED = {"type": "text", "text": "long", "cache_control": MARK}


def sent(claude, opened, model, prompt="hi", **settings):
    opened(claude.origin, model).generate(prompt, **settings)
    return claude.seen[-1].json


def test_a_budget_is_sent_above_the_answers_tokens(claude, opened):
    body = sent(claude, opened, "claude-sonnet-4-5", thinking=2048, max_tokens=100)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert (body["max_tokens"], "temperature" in body) == (2148, False)
    with pytest.raises(errors.ContextOverflow):  # of the stand-in, which is small
        sent(claude, opened, "claude-sonnet-4-5", thinking=True, temperature=1, max_tokens=100)
    body = claude.seen[-1].json
    assert body["max_tokens"] == 100 + body["thinking"]["budget_tokens"]
    body = sent(claude, opened, "claude-sonnet-4-5", thinking=False)
    assert (body["thinking"], body["temperature"]) == ({"type": "disabled"}, 0.0)
    body = sent(claude, opened, "claude-sonnet-5", thinking=True)
    assert (body["thinking"], body["max_tokens"]) == ({"type": "adaptive"}, 512)
    assert "thinking" not in sent(claude, opened, "claude-3-5-haiku", thinking=False)


@pytest.mark.parametrize(
    ("model", "settings", "word"),
    [
        ("claude-sonnet-4-5", {"thinking": 100}, "1,024"),
        ("claude-sonnet-4-5", {"thinking": 2048, "temperature": 0.5}, "temperature"),
        ("claude-sonnet-4-5", {"thinking": 2048, "top_k": 5}, "top_k"),
        ("claude-sonnet-5", {"thinking": 2048}, "thinking"),
        ("claude-3-5-haiku", {"thinking": True}, "thinking"),
        ("claude-sonnet-4-5", {"template": {"a": 1}}, "template"),
    ],
)
def test_what_cannot_be_had_is_refused(claude, opened, model, settings, word):
    with pytest.raises(errors.InvalidInput, match=word):
        opened(claude.origin, model).generate("hi", **settings)
    assert claude.seen == []


def test_cache_marks_are_sent(claude, opened):
    talk = [
        {"role": "system", "content": [MARKED]},
        {"role": "user", "content": [MARKED, {"type": "text", "text": "short"}]},
    ]
    body = sent(claude, opened, "claude-sonnet-4-5", talk)
    assert body["system"] == [MARKED]
    assert body["messages"][0]["content"] == [MARKED, {"type": "text", "text": "short"}]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "audio"])
def test_what_would_be_lost_is_refused_by_name(claude, opened, name):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", name: "hm"},
            {"role": "user", "content": "c"}]  # fmt: skip
    with pytest.raises(errors.InvalidInput, match=name):
        opened(claude.origin).generate(talk)
    talk[1][name] = None
    assert opened(claude.origin).generate(talk).text
