"""Thinking and cache marks on the Messages API."""

from __future__ import annotations

import json

import pytest

from memserve import errors, tools
from memserve.http import Event
from memserve.http.chat import message_parts
from memserve_anthropic import messages

MARK = {"type": "ephemeral"}
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}
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
        ("claude-sonnet-4-5", {"thinking": 2048, "tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
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


THOUGHT = {"type": "thinking", "thinking": "Ask the clock.", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "AAA="}
USES = [{"type": "tool_use", "id": f"toolu_{n}", "name": "now", "input": {"zone": n}} for n in (1, 2)]
BLOCKS = [
    THOUGHT,
    HIDDEN,
    {"type": "text", "text": "Well."},
    USES[0],
    {**THOUGHT, "signature": "bw=="},
    USES[1],
]


def _streamed(blocks):
    """A stream of these blocks, each cut into single characters."""
    pieces = {"text": "text", "thinking": "thinking", "tool_use": "input"}
    for at, block in enumerate(blocks):
        key = pieces.get(block["type"])
        whole = json.dumps(block["input"]) if key == "input" else block.get(key, "")
        start = {**block, **({key: {} if key == "input" else ""} if key else {})}
        if "signature" in block:
            start["signature"] = ""
        yield "content_block_start", {"index": at, "content_block": start}
        kind, word = ("input_json_delta", "partial_json") if key == "input" else (f"{key}_delta", key)
        for sign in whole:
            yield "content_block_delta", {"index": at, "delta": {"type": kind, word: sign}}
        if "signature" in block:
            told = {"type": "signature_delta", "signature": block["signature"]}
            yield "content_block_delta", {"index": at, "delta": told}
        yield "content_block_stop", {"index": at}
    yield "message_delta", {"delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}
    yield "message_stop", {}


def test_signed_thoughts_go_back_with_their_calls():
    body = {"content": BLOCKS, "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 9}}
    whole = messages.completion(json.dumps(body), ValueError)
    assert (whole.reasoning, whole.text) == ("Ask the clock.Ask the clock.", "Well.")
    reader, deltas = messages.MessageReader(ValueError), []
    for name, chunk in _streamed(BLOCKS):
        deltas += reader.take(Event(name, json.dumps({"type": name, **chunk})))
    deltas += reader.end()
    assert deltas[-1].tool_calls == whole.tool_calls
    assert "".join(delta.reasoning for delta in deltas) == whole.reasoning
    talk = [
        {"role": "user", "content": "a"},
        tools.message(whole),
        *(tools.result(call, 1) for call in whole.tool_calls),
    ]
    assert messages.prompt(talk)["messages"][1] == {"role": "assistant", "content": BLOCKS}
    elsewhere = message_parts.messages(talk)[1]["tool_calls"][0]
    assert elsewhere == {
        "id": "toolu_1",
        "type": "function",
        "function": {"name": "now", "arguments": '{"zone": 1}'},
    }


@pytest.mark.parametrize("signature", ["not JSON", '[{"reasoningContent": {}}]', "[1]", "{}", None])
def test_what_another_provider_signed_is_left_out(signature):
    call = {"id": "a", "function": {"name": "now", "arguments": "{}"}, "signature": signature}
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [call]}]
    assert messages.prompt(talk)["messages"][1]["content"] == [
        {"type": "tool_use", "id": "a", "name": "now", "input": {}}
    ]


def test_a_picture_as_a_tools_answer_is_sent():
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    talk = [{"role": "user", "content": "a"}, {"role": "tool", "tool_call_id": "b", "content": [part]}]
    told = messages.prompt(talk)["messages"][0]["content"][-1]
    assert told["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    ]
