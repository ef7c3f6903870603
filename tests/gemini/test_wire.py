"""What is sent to Gemini and what is read from it."""

from __future__ import annotations

import json

import pytest
from fake_gemini import event
from faulty_server import SSE_HEAD, raw, reply, stream

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


def candidate(*parts, reason="STOP", **more):
    return {"content": {"role": "model", "parts": list(parts)}, "finishReason": reason, "index": 0, **more}


def answering(*candidates, **more):
    return reply(200, {"candidates": list(candidates), **more})


OK = answering(candidate({"text": "ok"}))


def test_the_defaults_are_sent(gemini, opened):
    answer = opened(gemini.origin).generate("hi")
    seen = gemini.seen[0]
    assert seen.path == "/v1beta/models/gemini-2.5-flash:generateContent"
    assert seen.headers["x-goog-api-key"] == gemini.key
    assert seen.json == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "generationConfig": {"temperature": 0.0, "topP": 1.0, "maxOutputTokens": 512},
    }
    assert answer.model == "gemini-2.5-flash"
    assert answer.usage == Usage(gemini_tokens(answer), len(answer.text.split()), 2)


def gemini_tokens(answer):
    return answer.usage.prompt_tokens


def test_every_setting_is_sent(gemini, opened):
    opened(gemini.origin).generate(
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"},
         {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "go"}],
        max_tokens=7, temperature=0.5, top_p=0.9, top_k=4, seed=3, stop=["zz"], n=2, logprobs=3, tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "now"}},
        gemini_thinking_config={"thinkingBudget": 0},
        gemini_safety_settings=[{"category": "X", "threshold": "BLOCK_NONE"}],
    )  # fmt: skip
    assert gemini.seen[0].json == {
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}]},
            {"role": "model", "parts": [{"text": "yes?"}]},
            {"role": "user", "parts": [{"text": "go"}]},
        ],
        "generationConfig": {
            "temperature": 0.5, "topP": 0.9, "topK": 4, "seed": 3, "maxOutputTokens": 7,
            "stopSequences": ["zz"], "candidateCount": 2, "responseLogprobs": True, "logprobs": 3,
            "thinkingConfig": {"thinkingBudget": 0},
        },
        "tools": [{"functionDeclarations": [
            {"name": "now", "description": "the time",
             "parametersJsonSchema": {"type": "object", "properties": {}}}
        ]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["now"]}},
        "safetySettings": [{"category": "X", "threshold": "BLOCK_NONE"}],
    }  # fmt: skip


def test_tool_talk_is_translated(gemini, opened):
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"zone": "utc"}'}}
    talk = [
        {"role": "user", "content": "time?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]
    opened(gemini.origin).generate(talk, tools=[TOOL])
    asked = {"functionCall": {"id": "c1", "name": "now", "args": {"zone": "utc"}}}
    given = {"functionResponse": {"id": "c1", "name": "now", "response": {"result": "noon"}}}
    assert gemini.seen[0].json["contents"][1:] == [
        {"role": "model", "parts": [asked]},
        {"role": "user", "parts": [given]},
    ]
    opened(gemini.origin, "gemini-3-pro").generate(talk, tools=[TOOL])
    assert gemini.seen[1].json["contents"][1]["parts"][0]["thoughtSignature"]


def test_images_are_translated(gemini, opened):
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    opened(gemini.origin).generate(
        [{"role": "user", "content": [{"type": "text", "text": "what?"}, picture]}]
    )
    assert gemini.seen[0].json["contents"][0]["parts"] == [
        {"text": "what?"}, {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
    ]  # fmt: skip


def test_tools_are_called_whole_and_streamed(gemini, opened):
    generator = opened(gemini.origin)
    answer = generator.generate("time?", tools=[TOOL], tool_choice="required")
    assert (answer.text, answer.finish_reason) == (None, "tool_calls")
    assert answer.tool_calls == (ToolCall("call_0", "now", "{}"),)
    last = list(generator.stream("time?", tools=[TOOL], tool_choice="required"))[-1]
    assert (last.tool_calls, last.finish_reason) == (answer.tool_calls, "tool_calls")


@pytest.mark.parametrize(
    ("model", "field"), [("gemini-2.0-flash", "responseSchema"), ("gemini-2.5-pro", "responseJsonSchema")]
)
def test_a_schema_is_sent_in_the_models_own_field(model, field, gemini, opened):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    answer = opened(gemini.origin, model).generate("hi", schema=schema)
    assert json.loads(answer.text) == {"a": 1}
    config = gemini.seen[0].json["generationConfig"]
    assert (config[field], config["responseMimeType"]) == (schema, "application/json")


def test_choices_are_an_enum(gemini, opened):
    assert opened(gemini.origin).generate("hi", choices=["yes", "no"]).text == "yes"


def test_logprobs_are_read(gemini, opened):
    answer = opened(gemini.origin).generate("hi", max_tokens=3, logprobs=2)
    assert [token.logprob for token in answer.logprobs] == [-0.25] * 3
    assert answer.logprobs[0].top[1] == ("rival0", -2.0)
    assert "".join(token.token for token in answer.logprobs) == answer.text


def test_samples_come_in_order(server, opened):
    first, second = candidate({"text": "a"}), {**candidate({"text": "b"}), "index": 1}
    server.will(answering(second, first))
    assert [s.text for s in opened(server.base_url).generate("hi", n=2).samples] == ["a", "b"]


def test_a_stream_tells_usage_once(gemini, opened):
    generator = opened(gemini.origin)
    deltas = list(generator.stream("hi", max_tokens=5))
    whole = generator.generate("hi", max_tokens=5)
    assert gemini.seen[0].path.endswith(":streamGenerateContent?alt=sse")
    assert "".join(delta.text for delta in deltas) == whole.text
    assert [delta.usage for delta in deltas if delta.usage] == [whole.usage]
    assert deltas[-1].finish_reason == "length"


def test_tokens_are_counted_by_the_provider(gemini, opened):
    generator = opened(gemini.origin)
    assert generator.count_tokens("one two three") == generator.generate("one two three").usage.prompt_tokens


def test_thoughts_are_kept_apart_and_paid_for(server, opened):
    usage = {"promptTokenCount": 5, "thoughtsTokenCount": 30, "candidatesTokenCount": 2}
    server.will(answering(candidate({"text": "hm", "thought": True}, {"text": "yes"}), usageMetadata=usage))
    answer = opened(server.base_url).generate("hi")
    assert (answer.text, answer.reasoning) == ("yes", "hm")
    assert answer.usage == Usage(5, 32, None, 30)


def test_thoughts_alone_that_ran_out_of_room(server, opened):
    usage = {"promptTokenCount": 5, "thoughtsTokenCount": 512, "totalTokenCount": 517}
    server.will(reply(200, {"candidates": [{"finishReason": "MAX_TOKENS"}], "usageMetadata": usage}))
    answer = opened(server.base_url).generate("hi")
    assert (answer.text, answer.finish_reason) == (None, "length")
    assert answer.usage.completion_tokens == 512


@pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "SPII", "BLOCKLIST"])
def test_what_the_filter_stopped(reason, server, opened):
    server.will(reply(200, {"candidates": [{"finishReason": reason, "index": 0}]}))
    answer = opened(server.base_url).generate("hi")
    assert (answer.text, answer.finish_reason) == (None, "content_filter")


@pytest.mark.parametrize("reason", ["MALFORMED_FUNCTION_CALL", "OTHER"])
def test_what_broke_is_asked_for_again(reason, server, opened):
    server.will(answering(candidate(reason=reason)), OK)
    assert opened(server.base_url).generate("hi").text == "ok"


@pytest.mark.parametrize("how", ["generate", "stream"])
def test_a_blocked_prompt_is_refused_and_not_retried(how, gemini, opened):
    with pytest.raises(errors.ContentRefused, match="PROHIBITED_CONTENT"):
        list(getattr(opened(gemini.origin), how)("FORBIDDEN"))
    if how == "generate":
        assert len(gemini.seen) == 1


def test_a_stream_that_is_cut_raises(server, opened):
    half = event({"candidates": [{"content": {"parts": [{"text": "half"}]}}]})
    server.will(raw(SSE_HEAD + half))
    with pytest.raises(errors.ConnectionFailed):
        list(opened(server.base_url).stream("hi"))


def test_a_failure_inside_a_stream(server, opened):
    broken = event({"error": {"code": 503, "status": "UNAVAILABLE", "message": "overloaded"}})
    server.will(stream(broken), stream(event({"candidates": [candidate({"text": "ok"})]})))
    assert "".join(delta.text for delta in opened(server.base_url).stream("hi")) == "ok"


def test_a_key_never_stands_in_the_url(gemini, opened):
    generator = opened(gemini.origin)
    generator.generate("hi", max_tokens=2)
    list(generator.stream("hi", max_tokens=2))
    assert not any(gemini.key in seen.path for seen in gemini.seen)
    with pytest.raises(errors.InvalidInput, match="api_key"):
        opened(f"{gemini.origin}/v1beta?key=abc")


def test_a_key_is_needed(monkeypatch, gemini):
    with pytest.raises(errors.InvalidInput, match="GEMINI_API_KEY"):
        memserve.generator("gemini-2.5-flash", backend="gemini")
    monkeypatch.setenv("GOOGLE_API_KEY", gemini.key)
    with memserve.generator("gemini-2.5-flash", backend="gemini", base_url=gemini.origin) as generator:
        assert generator.generate("hi", max_tokens=2).text


@pytest.mark.parametrize(
    "settings",
    [{"regex": "a"}, {"min_p": 0.1}, {"truncate": "left"}, {"temperature": 2.5}, {"n": 9}, {"logprobs": 21},
     {"stop": list("abcdef")}, {"openai_user": "x"}],
    ids=str,
)  # fmt: skip
def test_what_gemini_does_not_take(settings, gemini, opened):
    with pytest.raises(errors.Unsupported):
        opened(gemini.origin).generate("hi", **settings)
    assert gemini.seen == []
