"""What is sent to Converse and what is read from it."""

from __future__ import annotations

import json

import pytest
from fake_bedrock import BEARER, frame
from faulty_server import raw, reply

import memserve
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
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\nconnection: close\r\n\r\n"
MESSAGE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "ok"}]}},
    "stopReason": "end_turn",
}
OK = reply(200, MESSAGE)


def saying(*blocks, **fields):
    return reply(200, {**MESSAGE, "output": {"message": {"content": list(blocks)}}, **fields})


def test_the_defaults_are_sent(bedrock, opened):
    answer = opened(bedrock.origin).generate("hi")
    seen = bedrock.seen[0]
    assert seen.path == "/model/us.amazon.nova-lite-v1%3A0/converse"
    assert seen.json == {
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        "inferenceConfig": {"maxTokens": 512, "temperature": 0.0, "topP": 1.0},
    }
    assert answer.request_id == "req-1"
    assert answer.usage.cached_tokens == 2


def test_every_setting_is_sent(bedrock, opened):
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"},
            {"role": "user", "content": "there"}]  # fmt: skip
    opened(bedrock.origin, "anthropic.claude-3-haiku-20240307-v1:0").generate(
        talk, max_tokens=7, temperature=0.5, top_p=0.9, top_k=4, stop=["zz"], tools=[TOOL],
        tool_choice="auto", bedrock_request_metadata={"a": "b"},
    )  # fmt: skip
    tool = {"name": "now", "description": "the time", "inputSchema": {"json": TOOL["function"]["parameters"]}}
    assert bedrock.seen[0].json == {
        "messages": [{"role": "user", "content": [{"text": "hi"}, {"text": "there"}]}],
        "system": [{"text": "be brief"}],
        "inferenceConfig": {"maxTokens": 7, "temperature": 0.5, "topP": 0.9, "stopSequences": ["zz"]},
        "additionalModelRequestFields": {"top_k": 4},
        "toolConfig": {"tools": [{"toolSpec": tool}], "toolChoice": {"auto": {}}},
        "requestMetadata": {"a": "b"},
    }


def test_top_k_in_novas_own_words(bedrock, opened):
    opened(bedrock.origin).generate("hi", top_k=4)
    assert bedrock.seen[0].json["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 4}}


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("amazon.nova-lite-v1:0", "amazon.nova-lite-v1%3A0"),
        ("eu.anthropic.claude-3-5-sonnet-20240620-v1:0", "eu.anthropic.claude-3-5-sonnet-20240620-v1%3A0"),
        ("arn:aws:bedrock:us-west-2:123:application-inference-profile/ab1",
         "arn%3Aaws%3Abedrock%3Aus-west-2%3A123%3Aapplication-inference-profile%2Fab1"),
    ],
)  # fmt: skip
def test_ids_profiles_and_arns_stand_in_the_path(model, path, bedrock, opened):
    assert opened(bedrock.origin, model).generate("hi", max_tokens=2).text
    assert bedrock.seen[0].path == f"/model/{path}/converse"


def test_tool_talk_is_translated(bedrock, opened):
    call = {"id": "t1", "type": "function", "function": {"name": "now", "arguments": '{"zone": "utc"}'}}
    opened(bedrock.origin).generate(
        [
            {"role": "user", "content": "time?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "t1", "content": "noon"},
            {"role": "user", "content": "thanks"},
        ],
        tools=[TOOL],
    )
    assert bedrock.seen[0].json["messages"][1:] == [
        {"role": "assistant", "content": [
            {"toolUse": {"toolUseId": "t1", "name": "now", "input": {"zone": "utc"}}}]},
        {"role": "user", "content": [
            {"toolResult": {"toolUseId": "t1", "content": [{"text": "noon"}]}}, {"text": "thanks"}]},
    ]  # fmt: skip


def test_images_are_translated(bedrock, opened):
    def ask(url):
        part = {"type": "image_url", "image_url": {"url": url}}
        opened(bedrock.origin).generate([{"role": "user", "content": [part]}])

    ask("data:image/jpeg;base64,iVBORw0KGgo=")
    assert bedrock.seen[0].json["messages"][0]["content"] == [
        {"image": {"format": "jpeg", "source": {"bytes": "iVBORw0KGgo="}}}
    ]
    with pytest.raises(errors.Unsupported, match="image"):
        ask("https://x.test/a.png")


def test_tools_are_called_whole_and_streamed(bedrock, opened):
    generator = opened(bedrock.origin)
    answer = generator.generate("time?", tools=[TOOL], tool_choice="required")
    assert (answer.text, answer.finish_reason) == (None, "tool_calls")
    assert answer.tool_calls == (ToolCall("tooluse_1", "now", "{}"),)
    last = list(generator.stream("time?", tools=[TOOL], tool_choice="required"))[-1]
    assert (last.tool_calls, last.finish_reason) == (answer.tool_calls, "tool_calls")
    assert generator.generate("time?", tools=[TOOL], tool_choice="none").text
    assert "toolConfig" not in bedrock.seen[-1].json


def test_a_schema_is_sent_as_text(bedrock, opened):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    answer = opened(bedrock.origin, "us.anthropic.claude-haiku-4-5-20251001-v1:0").generate(
        "hi", schema=schema
    )
    assert json.loads(answer.text) == {"a": 1}
    form = bedrock.seen[0].json["outputConfig"]["textFormat"]
    assert json.loads(form["structure"]["jsonSchema"]["schema"]) == schema


def test_a_stream_tells_usage_once(bedrock, opened):
    generator = opened(bedrock.origin)
    deltas = list(generator.stream("hi", max_tokens=5))
    whole = generator.generate("hi", max_tokens=5)
    assert "".join(delta.text for delta in deltas) == whole.text
    assert [delta.usage for delta in deltas if delta.usage] == [whole.usage]
    assert deltas[-1].finish_reason == "length"
    assert bedrock.seen[0].path.endswith("/converse-stream")


def test_tokens_are_counted_by_the_provider(bedrock, opened):
    generator = opened(bedrock.origin, "us.anthropic.claude-haiku-4-5-20251001-v1:0")
    assert generator.count_tokens("one two three") == generator.generate("one two three").usage.prompt_tokens


def test_usage_counts_what_caches_held(server, opened):
    usage = {"inputTokens": 3, "outputTokens": 1, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 20}
    server.will(saying({"text": "ok"}, usage=usage))
    assert opened(server.base_url).generate("hi").usage == Usage(123, 1, 100, written_tokens=20)


def test_reasoning_is_kept_apart(server, opened):
    thought = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}
    server.will(saying(thought, {"text": "yes"}))
    answer = opened(server.base_url).generate("hi")
    assert (answer.text, answer.reasoning) == ("yes", "hm")


@pytest.mark.parametrize(
    ("said", "means"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("tool_use", "tool_calls"),
     ("guardrail_intervened", "content_filter"), ("content_filtered", "content_filter"),
     ("model_context_window_exceeded", "length")],
)  # fmt: skip
def test_why_it_ended(said, means, server, opened):
    server.will(saying({"text": "ok"}, stopReason=said))
    assert opened(server.base_url).generate("hi").finish_reason == means


@pytest.mark.parametrize("said", ["malformed_model_output", "malformed_tool_use"])
def test_what_broke_is_asked_for_again(said, server, opened):
    server.will(saying(stopReason=said), OK)
    assert opened(server.base_url).generate("hi").text == "ok"


def _text(words):
    return frame("contentBlockDelta", {"delta": {"text": words}, "contentBlockIndex": 0})


STOP = frame("messageStop", {"stopReason": "end_turn"})


def _exception(kind, message="said"):
    return frame("", {"message": message}, message_type="exception", exception_type=kind)


def test_a_stream_without_metadata_is_whole(server, opened):
    server.will(raw(HEAD + _text("o") + _text("k") + STOP))
    assert "".join(delta.text for delta in opened(server.base_url).stream("hi")) == "ok"


def test_an_exception_before_the_first_word_is_retried(server, opened):
    server.will(raw(HEAD + _exception("throttlingException")), raw(HEAD + _text("ok") + STOP))
    assert "".join(delta.text for delta in opened(server.base_url).stream("hi")) == "ok"
    assert len(server.posts) == 2


@pytest.mark.parametrize(
    ("kind", "error"),
    [("throttlingException", errors.Throttled), ("internalServerException", errors.ServerFailed),
     ("modelStreamErrorException", errors.ServerFailed), ("validationException", errors.BadRequest),
     ("serviceUnavailableException", errors.Overloaded)],
)  # fmt: skip
def test_an_exception_after_the_first_word_raises(kind, error, server, opened):
    server.will(raw(HEAD + _text("half") + _exception(kind)))
    with pytest.raises(error, match="said"):
        list(opened(server.base_url).stream("hi"))


def test_an_error_frame_is_an_error(server, opened):
    broken = frame("", {}, message_type="error", error_code="InternalServerException", error_message="said")
    server.will(raw(HEAD + _text("half") + broken))
    with pytest.raises(errors.ServerFailed, match="said"):
        list(opened(server.base_url).stream("hi"))


@pytest.mark.parametrize("end", [b"", _text("more")[:-7], _text("more")[:5]])
def test_a_stream_that_is_cut_raises(end, server, opened):
    server.will(raw(HEAD + _text("half") + end))
    with pytest.raises(errors.ConnectionFailed):
        list(opened(server.base_url).stream("hi"))


def test_a_bearer_key_of_the_option_and_of_the_environment(bedrock, opened, monkeypatch):
    opened(bedrock.origin, api_key=BEARER).generate("hi", max_tokens=2)
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", BEARER)
    opened(bedrock.origin, bare=True).generate("hi", max_tokens=2)
    assert [seen.headers["authorization"] for seen in bedrock.seen] == [f"Bearer {BEARER}"] * 2


@pytest.mark.parametrize(
    "settings",
    [{"seed": 1}, {"logprobs": 1}, {"n": 2}, {"regex": "a"}, {"choices": ["a"]}, {"min_p": 0.1},
     {"temperature": 1.5}, {"truncate": "left"}, {"schema": {"type": "object"}}],
    ids=str,
)  # fmt: skip
def test_what_converse_does_not_take(settings, bedrock, opened):
    with pytest.raises(errors.Unsupported):
        opened(bedrock.origin).generate("hi", **settings)
    assert bedrock.seen == []


@pytest.mark.parametrize("model", ["us.anthropic.claude-opus-5-v1", "global.anthropic.claude-sonnet-5-v1:0"])
def test_a_new_claude_takes_no_sampling(model, bedrock, opened):
    generator = opened(bedrock.origin, model)
    assert generator.generate("hi", max_tokens=3).text
    assert bedrock.seen[0].json["inferenceConfig"] == {"maxTokens": 3}
    for setting in ("temperature", "top_p", "top_k"):
        with pytest.raises(errors.Unsupported, match=setting):
            generator.generate("hi", **{setting: 1})


def test_the_address_follows_the_region(monkeypatch):
    pair = {"aws_access_key_id": "AK", "aws_secret_access_key": "s" * 9}
    arn = "arn:aws:bedrock:eu-west-1:123:inference-profile/x"

    def address(model="amazon.nova-lite-v1:0", **options):
        with memserve.generator(model, backend="bedrock", **pair, **options) as generator:
            return generator.identity["base_url"]

    with pytest.raises(errors.InvalidInput, match="region"):
        address()
    assert address(arn) == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    assert address(region="cn-north-1") == "https://bedrock-runtime.cn-north-1.amazonaws.com.cn"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    assert address() == "https://bedrock-runtime.us-west-2.amazonaws.com"
