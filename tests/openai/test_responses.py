"""The Responses API: what is sent is what the SDK's own types allow, and what it answers is read."""

from __future__ import annotations

import json

import pytest
from extras import need
from faulty_server import event, reply, stream

from memserve import errors
from memserve.protocol import ToolCall

MODEL = "gpt-5.1"
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "First."},
           {"type": "summary_text", "text": "Then é."}], "encrypted_content": "c2VjcmV0"}  # fmt: skip
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "add", "arguments": '{"x": 7}',
        "status": "completed"}  # fmt: skip
TOKENS = [{"token": "Paris", "logprob": -0.5, "bytes": [80], "top_logprobs": []}]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
PIXEL = "data:image/png;base64,AAAA"


def said(text="Paris é", kind="output_text", **more):
    part = {"type": kind, "refusal" if kind == "refusal" else "text": text, **more}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def response(*output, status="completed", **more):
    spent = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 7,
             "output_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 16}  # fmt: skip
    about = {"id": "resp_1", "object": "response", "created_at": 1, "model": MODEL, "status": status}
    made = {"output": list(output), "usage": spent}
    return {**about, "error": None, "incomplete_details": None, **made, **more}


def opened(open_generator, model=MODEL, **options):
    return open_generator(model, dialect="openai-responses", **options)


def asked(server):
    types, pydantic = need("openai.types.responses", "dev"), need("pydantic", "dev")
    post = server.posts[-1]
    assert post.path.endswith("/responses")
    pydantic.TypeAdapter(types.response_create_params.ResponseCreateParams).validate_python(post.json)
    return post.json


def test_an_answer_is_read_whole(server, open_generator):
    server.will(reply(200, response(THOUGHT, said(annotations=[], logprobs=TOKENS))))
    found = opened(open_generator).generate("hi", thinking=True, max_tokens=64)
    assert (found.text, found.reasoning, found.finish_reason) == ("Paris é", "First.\n\nThen é.", "stop")
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (9, 7)
    assert (found.usage.cached_tokens, found.usage.reasoning_tokens) == (4, 5)
    assert found.logprobs[0].logprob == -0.5
    sent = asked(server)
    assert sent["reasoning"] == {"effort": "medium", "summary": "auto"}
    assert (sent["max_output_tokens"], sent["store"]) == (64, False)
    assert sent["include"] == ["reasoning.encrypted_content"]


@pytest.mark.parametrize(("body", "text", "finish"), [
    (response(said(), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
     "Paris é", "length"),
    (response(THOUGHT, status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
     None, "length"),
    (response(said(), status="incomplete", incomplete_details={"reason": "content_filter"}),
     "Paris é", "content_filter"),
    (response(said("I cannot", "refusal")), None, "content_filter"),
    (response(THOUGHT, CALL), None, "tool_calls"),
])  # fmt: skip
def test_how_it_ended(server, open_generator, body, text, finish):
    server.will(reply(200, body))
    found = opened(open_generator).generate("hi")
    assert (found.text, found.finish_reason) == (text, finish)
    assert found.refusal == ("I cannot" if "refusal" in json.dumps(body) else None)


def test_a_response_that_failed_raises_what_it_says(server, open_generator):
    gone = {"code": "invalid_prompt", "message": "the prompt breaks the rules"}
    server.will(reply(200, response(status="failed", error=gone)))
    with pytest.raises(errors.RemoteError, match="breaks the rules"):
        opened(open_generator, max_retries=0).generate("hi")


def test_calls_keep_their_signed_thoughts_and_go_back_behind_them(server, open_generator):
    server.will(reply(200, response(THOUGHT, said("I add."), CALL)), reply(200, response(said("8"))))
    generator = opened(open_generator)
    first = generator.generate("add 7", tools=[TOOL], tool_choice="required")
    [call] = first.tool_calls
    assert (call.id, call.name, call.arguments) == ("call_1", "add", '{"x": 7}')
    assert json.loads(call.signature) == [THOUGHT]
    own = {"id": call.id, "type": "function", "signature": call.signature,
           "function": {"name": "add", "arguments": call.arguments}}  # fmt: skip
    talk = [{"role": "system", "content": "brief"}, {"role": "user", "content": "add 7"},
            {"role": "assistant", "content": "I add.", "tool_calls": [own]},
            {"role": "tool", "tool_call_id": "call_1", "content": "8"}]  # fmt: skip
    assert generator.generate(talk, tools=[TOOL]).text == "8"
    sent = asked(server)
    kinds = [item.get("type", item.get("role")) for item in sent["input"]]
    assert kinds == ["system", "user", "reasoning", "assistant", "function_call", "function_call_output"]
    assert sent["tools"][0]["strict"] is False, "here true is the default"


def test_settings_and_pictures_are_sent_in_this_routes_words(server, open_generator):
    server.will(reply(200, response(said('{"a": 1}'))))
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    choice = {"type": "function", "function": {"name": "add"}}
    opened(open_generator, "gpt-4o").generate(
        [{"role": "user", "content": parts}], schema={"type": "object"}, tools=[TOOL], tool_choice=choice,
        temperature=0.0, top_p=0.5, logprobs=2, openai_text={"verbosity": "low"}, openai_include=["x"],
    )  # fmt: skip
    sent = server.posts[-1].json
    assert sent["input"][0]["content"][1] == {"type": "input_image", "image_url": PIXEL, "detail": "auto"}
    assert sent["text"]["verbosity"] == "low" and sent["text"]["format"]["type"] == "json_schema"
    assert sent["tool_choice"] == {"type": "function", "name": "add"}
    assert (sent["top_logprobs"], sent["include"]) == (2, ["message.output_text.logprobs", "x"])


@pytest.mark.parametrize("setting", [{"stop": ["x"]}, {"seed": 1}, {"n": 2}])
def test_what_the_route_does_not_take_is_refused_before_it_is_sent(server, open_generator, setting):
    with pytest.raises(errors.Unsupported):
        opened(open_generator, "gpt-4o").generate("hi", **setting)
    assert server.posts == []


def told(kind, **more):
    return event({"type": f"response.{kind}", **more})


@pytest.mark.parametrize("listed", [True, False])
def test_a_stream_says_what_the_whole_says(server, open_generator, listed):
    items = [THOUGHT, said(), CALL]
    whole = response(*items) if listed else response()
    parts = [
        told("created", response=response(status="in_progress")),
        *(told("reasoning_summary_text.delta", output_index=0, summary_index=place, delta=piece)
          for place, text in enumerate(["First.", "Then é."]) for piece in text),
        *(told("output_text.delta", output_index=1, content_index=0, delta=piece) for piece in "Paris é"),
        told("function_call_arguments.delta", output_index=2, delta='{"x": 7}'),
        *(told("output_item.done", output_index=place, item=item) for place, item in enumerate(items)),
        told("completed", response=whole),
    ]  # fmt: skip
    server.will(stream(*parts))
    deltas = list(opened(open_generator).stream("hi"))
    assert "".join(one.text for one in deltas) == "Paris é"
    assert "".join(one.reasoning for one in deltas) == "First.\n\nThen é."
    last = deltas[-1]
    assert (last.finish_reason, last.usage.reasoning_tokens) == ("tool_calls", 5)
    assert last.tool_calls == (
        ToolCall("call_1", "add", '{"x": 7}', json.dumps([THOUGHT], ensure_ascii=False)),
    )


@pytest.mark.parametrize("end", [
    [told("failed", response=response(status="failed", error={"code": "server_error", "message": "broke"}))],
    [event({"type": "error", "code": "server_error", "message": "broke"})],
    [],
])  # fmt: skip
def test_a_stream_that_breaks_off_is_no_answer(server, open_generator, end):
    server.will(stream(told("output_text.delta", delta="Par"), *end))
    with pytest.raises(errors.RemoteError):
        list(opened(open_generator, max_retries=0).stream("hi"))
