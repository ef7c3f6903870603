"""Thinking on generateContent, and what of a message cannot be sent."""

from __future__ import annotations

import json

import pytest

from memserve import errors, tools
from memserve.http import Event
from memserve_gemini import answer, ask


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


def test_a_calls_signature_goes_back_with_it():
    first = {"functionCall": {"name": "now", "args": {}}, "thoughtSignature": "c2ln"}
    parts = [{"text": "Hm.", "thought": True}, first, {"functionCall": {"name": "now", "args": {"zone": 1}}}]
    body = json.dumps({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]})
    whole, reader = answer.completion(body, ValueError), answer.ContentReader(ValueError)
    reader.take(Event("message", body))
    assert reader.end()[-1].tool_calls == whole.tool_calls
    talk = [
        {"role": "user", "content": "a"},
        tools.message(whole),
        *(tools.result(call, 1) for call in whole.tool_calls),
    ]
    told = ask.prompt(talk, ask.model("gemini-3-pro"))["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in told] == ["c2ln", None]
    for call in talk[1]["tool_calls"]:  # as Claude signs: Gemini's word for calls of others stands in
        call["signature"] = '[{"type": "thinking", "signature": "x"}]'
    told = ask.prompt(talk, ask.model("gemini-3-pro"))["contents"][1]["parts"]
    assert {part.get("thoughtSignature") for part in told} == {ask.model("gemini-3-pro").signature}


def test_a_picture_as_a_tools_answer_is_refused():
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    talk = [
        {"role": "user", "content": "a"},
        {"role": "tool", "tool_call_id": "b", "name": "f", "content": [part]},
    ]
    with pytest.raises(errors.Unsupported, match="image as a tool's answer"):
        ask.prompt(talk, ask.model("gemini-3-pro"))
