"""Thinking on generateContent, and what of a message cannot be sent."""

from __future__ import annotations

import pytest

from memserve import errors


@pytest.mark.parametrize(
    ("model", "wanted", "config"),
    [
        ("gemini-2.5-flash", 64, {"thinkingBudget": 64, "includeThoughts": True}),
        ("gemini-2.5-flash", False, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", True, {"thinkingBudget": -1, "includeThoughts": True}),
        ("gemini-3-pro", True, {"thinkingLevel": "high", "includeThoughts": True}),
        ("gemini-2.0-flash", False, None),
    ],
)
def test_what_is_sent(gemini, opened, model, wanted, config):
    opened(gemini.origin, model).generate("hi", thinking=wanted, max_tokens=10)
    sent = gemini.seen[-1].json["generationConfig"]
    assert sent.get("thinkingConfig") == config
    assert sent["maxOutputTokens"] == (74 if wanted == 64 else 10)


@pytest.mark.parametrize(
    ("model", "wanted"), [("gemini-2.5-pro", False), ("gemini-3-pro", False), ("gemini-2.0-flash", True)]
)
def test_what_cannot_be_had_is_refused(gemini, opened, model, wanted):
    with pytest.raises(errors.Unsupported, match="thinking"):
        opened(gemini.origin, model).generate("hi", thinking=wanted)
    assert gemini.seen == []


def test_what_would_be_lost_is_refused_by_name(gemini, opened):
    marked = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]
    for message in ({"role": "user", "content": marked}, {"role": "user", "content": "a", "reasoning": "hm"}):
        with pytest.raises(errors.InvalidInput, match=r"cache_control|reasoning"):
            opened(gemini.origin).generate([message])
