"""What is sent to Claude and what is read from it."""

from __future__ import annotations

import json

import pytest
from fake_anthropic import event
from faulty_server import SSE_HEAD, raw, reply, stream

from memserve import errors
from memserve.protocol import ToolCall, Usage

TOOL = {
    "type": "function",
    "function": {
        "name": "now",
        "description": "the time",
        "parameters": {"type": "object", "properties": {}},
    },
}
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
              "output_tokens": 1},
}  # fmt: skip
OK = reply(200, MESSAGE)


def saying(**fields):
    return reply(200, {**MESSAGE, **fields})


def test_the_defaults_are_sent(claude, opened):
    answer = opened(claude.origin).generate("hi")
    seen = claude.seen[0]
    assert seen.path == "/v1/messages"
    assert seen.headers["x-api-key"] == claude.key
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert seen.json == {
        "model": "claude-haiku-4-5", "max_tokens": 512, "temperature": 0.0,
        "messages": [{"role": "user", "content": "hi"}],
    }  # fmt: skip
    assert answer.finish_reason == "stop"


def test_every_setting_is_sent(claude, opened):
    opened(claude.origin, "claude-3-5-sonnet-20241022").generate(
        [{"role": "system", "content": "be brief"}, {"role": "system", "content": "be kind"},
         {"role": "user", "content": "hi"}],
        max_tokens=7, temperature=0.5, top_p=0.9, top_k=4, stop=["zz"], tools=[TOOL], tool_choice="auto",
        anthropic_metadata={"user_id": "u"},
    )  # fmt: skip
    assert claude.seen[0].json == {
        "model": "claude-3-5-sonnet-20241022", "max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 4,
        "stop_sequences": ["zz"], "system": "be brief\n\nbe kind", "metadata": {"user_id": "u"},
        "messages": [{"role": "user", "content": "hi"}], "tool_choice": {"type": "auto"},
        "tools": [{"name": "now", "description": "the time",
                   "input_schema": {"type": "object", "properties": {}}}],
    }  # fmt: skip


def test_tool_talk_is_translated(claude, opened):
    call = {"id": "toolu_7", "type": "function", "function": {"name": "now", "arguments": '{"zone": "utc"}'}}
    opened(claude.origin).generate(
        [
            {"role": "user", "content": "time?"},
            {"role": "assistant", "content": None, "tool_calls": [call, {**call, "id": "toolu_8"}]},
            {"role": "tool", "tool_call_id": "toolu_7", "content": "noon"},
            {"role": "tool", "tool_call_id": "toolu_8", "content": "night"},
        ],
        tools=[TOOL],
    )
    use = {"type": "tool_use", "id": "toolu_7", "name": "now", "input": {"zone": "utc"}}
    assert claude.seen[0].json["messages"][1:] == [
        {"role": "assistant", "content": [use, {**use, "id": "toolu_8"}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_7", "content": "noon"},
            {"type": "tool_result", "tool_use_id": "toolu_8", "content": "night"},
        ]},
    ]  # fmt: skip


def test_images_are_translated(claude, opened):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    link = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
    opened(claude.origin).generate(
        [{"role": "user", "content": [{"type": "text", "text": "what?"}, picture, link]}]
    )
    assert claude.seen[0].json["messages"][0]["content"] == [
        {"type": "text", "text": "what?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
    ]


def test_tools_are_called_whole_and_streamed(claude, opened):
    generator = opened(claude.origin)
    answer = generator.generate("time?", tools=[TOOL], tool_choice="required")
    assert (answer.text, answer.finish_reason) == (None, "tool_calls")
    assert answer.tool_calls == (ToolCall("toolu_1", "now", "{}"),)
    last = list(generator.stream("time?", tools=[TOOL], tool_choice="required"))[-1]
    assert (last.tool_calls, last.finish_reason) == (answer.tool_calls, "tool_calls")


def test_usage_counts_what_caches_held(server, opened):
    server.will(OK)
    assert opened(server.base_url).generate("hi").usage == Usage(123, 1, 100, written_tokens=20)


def test_a_stream_tells_usage_once(claude, opened):
    generator = opened(claude.origin)
    deltas = list(generator.stream("hi", max_tokens=5))
    whole = generator.generate("hi", max_tokens=5)
    assert "".join(delta.text for delta in deltas) == whole.text
    assert [delta.usage for delta in deltas if delta.usage] == [whole.usage]
    assert deltas[-1].finish_reason == "length"


def test_a_schema_is_sent_and_kept(claude, opened):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    answer = opened(claude.origin).generate("hi", schema=schema)
    assert json.loads(answer.text) == {"a": 1}
    assert claude.seen[0].json["output_config"] == {"format": {"type": "json_schema", "schema": schema}}


def test_tokens_are_counted_by_the_provider(claude, opened):
    generator = opened(claude.origin)
    assert generator.count_tokens("one two three") == generator.generate("one two three").usage.prompt_tokens
    assert claude.seen[0].path == "/v1/messages/count_tokens"


def test_thinking_is_kept_apart(server, opened):
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "yes"}]
    server.will(saying(content=blocks))
    answer = opened(server.base_url).generate("hi")
    assert (answer.text, answer.reasoning) == ("yes", "hm")


@pytest.mark.parametrize(
    ("said", "means"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("tool_use", "tool_calls"),
     ("model_context_window_exceeded", "length"), ("refusal", "content_filter")],
)  # fmt: skip
def test_why_it_ended(said, means, server, opened):
    server.will(saying(stop_reason=said))
    assert opened(server.base_url).generate("hi").finish_reason == means


def test_a_refusal_is_no_answer(server, opened):
    server.will(saying(stop_reason="refusal"))
    answer = opened(server.base_url).generate("hi")
    assert (answer.text, answer.refusal) == (None, "ok")


def test_a_paused_turn_is_asked_for_again(server, opened):
    server.will(saying(stop_reason="pause_turn"), OK)
    assert opened(server.base_url).generate("hi").text == "ok"


START = event("message_start", message={"usage": {"input_tokens": 3, "output_tokens": 1}})


def words(text):
    return event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def test_an_overload_before_the_first_word_is_retried(server, opened):
    overload = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    good = [START, words("ok"), event("message_delta", delta={"stop_reason": "end_turn"})]
    server.will(stream(START, overload), stream(*good, event("message_stop")))
    assert "".join(d.text for d in opened(server.base_url).stream("hi")) == "ok"
    assert len(server.posts) == 2


def test_an_overload_after_the_first_word_raises(server, opened):
    overload = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    server.will(stream(START, words("half"), overload))
    with pytest.raises(errors.Overloaded):
        list(opened(server.base_url).stream("hi"))


def test_a_stream_that_is_cut_raises(server, opened):
    server.will(raw(SSE_HEAD + START + words("half")))
    with pytest.raises(errors.ConnectionFailed):
        list(opened(server.base_url).stream("hi"))


def test_one_body_instead_of_a_stream_is_read(server, opened):
    server.will(OK)
    assert [d.text for d in opened(server.base_url).stream("hi")] == ["ok"]
