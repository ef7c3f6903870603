"""Thinking through Converse: Claude's own field, above the answer's tokens."""

from __future__ import annotations

import json

import pytest

from memserve import errors, tools
from memserve.http import Event
from memserve_bedrock import answer, ask

TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
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
    (CLAUDE, {"thinking": 2048, "tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
])  # fmt: skip
def test_what_cannot_be_had_is_refused(bedrock, opened, model, settings, word):
    with pytest.raises(errors.InvalidInput, match=word):
        opened(bedrock.origin, model).generate("hi", **settings)
    assert bedrock.seen == []


THOUGHT = {"reasoningContent": {"reasoningText": {"text": "Ask the clock.", "signature": "c2ln"}}}
HIDDEN = {"reasoningContent": {"redactedContent": "AAA="}}
USE = {"toolUse": {"toolUseId": "t1", "name": "now", "input": {}}}


def _streamed(blocks):
    """A stream of these blocks, each cut into single characters."""
    for at, block in enumerate(blocks):
        if "toolUse" in block:
            use = {key: block["toolUse"][key] for key in ("toolUseId", "name")}
            yield "contentBlockStart", {"contentBlockIndex": at, "start": {"toolUse": use}}
            continue
        said = block.get("reasoningContent")
        told = said.get("reasoningText", said) if said else {"text": block["text"]}
        for name, value in told.items():
            for sign in value:
                delta = {name: sign}
                yield (
                    "contentBlockDelta",
                    {"contentBlockIndex": at, "delta": {"reasoningContent": delta} if said else delta},
                )
    yield "messageStop", {"stopReason": "tool_use"}
    yield "metadata", {"usage": {"inputTokens": 1, "outputTokens": 9}}


@pytest.mark.parametrize("thoughts", [
    [THOUGHT], [HIDDEN], [THOUGHT, HIDDEN], [{"reasoningContent": {"reasoningText": {"text": "unsigned"}}}],
])  # fmt: skip
def test_signed_thoughts_go_back_with_their_calls(thoughts):
    blocks = [*thoughts, {"text": "Well."}, USE]
    body = {"output": {"message": {"content": blocks}}, "stopReason": "tool_use",
            "usage": {"inputTokens": 1, "outputTokens": 9}}  # fmt: skip
    whole = answer.completion(json.dumps(body), {}, "m", ValueError)
    reader, deltas = answer.ConverseReader(ValueError), []
    for name, chunk in _streamed(blocks):
        deltas += reader.take(Event(name, json.dumps(chunk)))
    deltas += reader.end()
    assert deltas[-1].tool_calls == whole.tool_calls
    assert "".join(delta.reasoning for delta in deltas) == (whole.reasoning or "")
    talk = [{"role": "user", "content": "a"}, tools.message(whole), tools.result(whole.tool_calls[0], 1)]
    signed = [block for block in thoughts if "unsigned" not in str(block)]
    assert ask.prompt(talk)["messages"][1]["content"] == [*signed, {"text": "Well."}, USE]
