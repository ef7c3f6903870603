"""Thinking through Converse: Claude's own field, above the answer's tokens."""

from __future__ import annotations

import pytest

from memserve import errors

CLAUDE, NEW, OLD = (
    "anthropic.claude-sonnet-4-5-v1:0",
    "anthropic.claude-sonnet-5",
    "anthropic.claude-3-5-haiku",
)


def _sent(bedrock, opened, model, **settings):
    opened(bedrock.origin, model).generate("hi", **settings)
    return bedrock.seen[-1].json


def test_a_budget_is_sent_above_the_answers_tokens(bedrock, opened):
    body = _sent(bedrock, opened, CLAUDE, thinking=2048, max_tokens=100)
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    assert body["inferenceConfig"] == {"maxTokens": 2148}
    body = _sent(bedrock, opened, NEW, thinking=True, max_tokens=100)
    assert body["additionalModelRequestFields"] == {"thinking": {"type": "adaptive"}}
    assert body["inferenceConfig"] == {"maxTokens": 100}
    for model in (CLAUDE, OLD):
        body = _sent(bedrock, opened, model, thinking=False, max_tokens=100)
        assert "additionalModelRequestFields" not in body
        assert body["inferenceConfig"]["temperature"] == 0.0


@pytest.mark.parametrize(("model", "settings", "word"), [
    (CLAUDE, {"thinking": 100}, "1,024"), (CLAUDE, {"thinking": 2048, "temperature": 0.5}, "temperature"),
    (CLAUDE, {"thinking": 2048, "top_k": 5}, "top_k"), (NEW, {"thinking": 2048}, "thinking"),
    (OLD, {"thinking": True}, "thinking"),
])  # fmt: skip
def test_what_cannot_be_had_is_refused(bedrock, opened, model, settings, word):
    with pytest.raises(errors.InvalidInput, match=word):
        opened(bedrock.origin, model).generate("hi", **settings)
    assert bedrock.seen == []
