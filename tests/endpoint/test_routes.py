"""Each route says in OpenAI's shape what the protocol says, and refuses by name what nobody takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from extras import need

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
HI = {"model": "talker-1", "messages": [{"role": "user", "content": "hi there"}]}


def events(response: Any) -> list[Any]:
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_a_chat_answer(ask):
    body = ask(CHAT, HI).json()
    [choice] = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "you said hi there", "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    assert (body["object"], body["model"], body["id"][:9]) == ("chat.completion", "talker-1", "chatcmpl-")


def test_a_stream_begins_with_the_role_and_ends_with_the_tokens(ask):
    chunks = events(ask(CHAT, {**HI, "stream": True, "stream_options": {"include_usage": True}}))
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    *said, finish, usage, done = chunks
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in said) == "you said hi there"
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], usage["usage"]["total_tokens"], done) == ([], 5, "[DONE]")
    assert len({one["id"] for one in chunks[:-1]}) == 1


def test_settings_arrive_as_the_protocols_own(ask, endpoint):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    body = {
        "model": "also/this",
        "messages": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": [image]}],
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "min_p": 0.1,
        "seed": 3,
        "stop": "x",
        "reasoning_effort": "high",
        "chat_template_kwargs": {"a": 1},
        "user": "u",
        "frequency_penalty": 0,
        "logit_bias": {},
        "verbosity": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "a", "schema": {"type": "object"}},
        },
    }
    assert ask(CHAT, body).status_code == 200
    got = endpoint.engine.asked[-1]
    assert (got.max_tokens, got.temperature, got.top_p, got.top_k, got.min_p, got.seed) == (
        9,
        0.5,
        0.9,
        4,
        0.1,
        3,
    )
    assert (got.stop, got.thinking, got.template) == (("x",), True, {"a": 1})
    assert (got.schema, got.extra) == ({"type": "object"}, {"talker_verbosity": "low"})
    assert [message["role"] for message in got.prompt] == ["system", "user"]


def test_several_samples_with_logprobs_whole_and_streamed(ask):
    body = {**HI, "n": 2, "logprobs": True, "top_logprobs": 2, "temperature": 1, "return_token_ids": True}
    choices = ask(CHAT, body).json()["choices"]
    assert [one["message"]["content"] for one in choices] == ["you said hi there", "you said hi there1"]
    first, second = choices[0]["logprobs"]["content"]
    assert first["bytes"] == [195, 188]
    assert [rival["token"] for rival in first["top_logprobs"]] == ["ü", "b"]
    assert (second["logprob"], choices[0]["token_ids"]) == (-9999.0, [7, 8])
    chunks = [one["choices"][0] for one in events(ask(CHAT, {**body, "stream": True}))[:-1]]
    for index in (0, 1):
        own = [one for one in chunks if one["index"] == index]
        assert "".join(one["delta"].get("content", "") for one in own) == choices[index]["message"]["content"]
        assert [one["logprobs"] for one in own if one["logprobs"]] == [choices[index]["logprobs"]]
        assert [one["finish_reason"] for one in own if one["finish_reason"]] == ["stop"]


def test_a_response_has_the_logprobs_that_it_includes(ask):
    """Whole and streamed, as a chat with the same question has them."""
    chat = ask(CHAT, {**HI, "logprobs": True, "top_logprobs": 2}).json()["choices"][0]
    body = {"model": "talker-1", "input": HI["messages"], "include": ["message.output_text.logprobs"],
            "top_logprobs": 2}  # fmt: skip
    [item] = ask("/v1/responses", body).json()["output"]
    assert item["content"][0]["logprobs"] == chat["logprobs"]["content"]
    told = events(ask("/v1/responses", {**body, "stream": True}))
    assert told[-1]["response"]["output"][0]["content"] == item["content"]
    assert ask("/v1/responses", {**body, "include": 5}).status_code == 400
    odd = {"model": "talker-1", "input": "hi", "include": ["x"]}
    assert "include" in ask("/v1/responses", odd).json()["error"]["message"]


def test_tools_and_thoughts(ask):
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"properties": {"x": {"type": "integer"}}}},
    }
    body = {**HI, "tools": [tool, tool], "thinking": True}
    message = ask(CHAT, body).json()["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == (None, "hmm")
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["f", "f"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"x": 1}
    one = ask(CHAT, {**body, "parallel_tool_calls": False}).json()["choices"][0]
    assert (len(one["message"]["tool_calls"]), one["finish_reason"]) == (1, "tool_calls")
    deltas = [c["choices"][0]["delta"] for c in events(ask(CHAT, {**body, "stream": True}))[:-1]]
    assert [d["reasoning_content"] for d in deltas if "reasoning_content" in d] == ["hmm"]
    [calls] = [d["tool_calls"] for d in deltas if "tool_calls" in d]
    assert [call["index"] for call in calls] == [0, 1]


def test_plain_text_and_token_ids(ask, endpoint):
    found = ask(TEXT, {"prompt": ["a", "b"], "n": 2, "temperature": 1, "logprobs": 1}).json()
    said = [(one["index"], one["text"].partition("text=")[2]) for one in found["choices"]]
    assert said == [(0, "'a')"), (1, "'a')1"), (2, "'b')"), (3, "'b')1")]
    assert found["choices"][0]["logprobs"]["text_offset"] == [0, 1]
    assert found["usage"]["completion_tokens"] == 8
    assert ask(TEXT, {"prompt": [1, 2, 3]}).status_code == 200
    assert endpoint.engine.asked[-1].prompt == [1, 2, 3]
    assert ask(TEXT, {"prompt": [[1], [2]], "stream": True}).text.endswith("data: [DONE]\n\n")
    assert ask(TEXT, {"prompt": {"a": 1}}).json()["error"]["code"] == "invalid_value"


def test_vectors_and_ranks(ask):
    import base64

    import numpy as np

    found = ask("/v1/embeddings", {"input": ["a", "bcd"], "model": "lengths"}).json()
    assert [row["embedding"] for row in found["data"]] == [[1, 2, 3], [3, 4, 5]]
    packed = ask("/v1/embeddings", {"input": "a", "encoding_format": "base64", "dimensions": 2}).json()
    assert np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4").tolist() == [1, 2]
    ranks = ask("/v1/rerank", {"query": "q", "documents": ["a", {"text": "bcd"}, "ab"], "top_n": 2}).json()
    assert [(row["index"], row["relevance_score"]) for row in ranks["results"]] == [(1, 3.0), (2, 2.0)]


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ("overflow", 400, "context_length_exceeded"),
        ("broken", 500, None),
        ("busy", 503, "overloaded"),
        ("slower", 429, "rate_limit_exceeded"),
        ("key", 502, "upstream"),
        ("bug", 500, None),
        ("policy", 400, "content_filter"),
        ("poor", 429, "insufficient_quota"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_a_status_before_the_first_word(ask, said, status, code, stream):
    body = {"model": "talker-1", "messages": [{"role": "user", "content": f"fail {said}"}], "stream": stream}
    response = ask(CHAT, body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert {"message", "type", "param", "code"} <= set(error)
    assert ("retry-after" in response.headers) == (said in {"busy", "slower"})
    assert response.headers.get("x-should-retry") == ("false" if said in {"broken", "key", "bug"} else None)


def test_a_stream_that_breaks_says_so_and_does_not_look_whole(ask):
    response = ask(CHAT, {"messages": [{"role": "user", "content": "now break please"}], "stream": True})
    last = events(response)[-1]
    assert (last["error"]["code"], "[DONE]" in response.text) == ("upstream", False)


@pytest.mark.sampled(6)
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temprature": 1}, "temprature"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"echo": True}, "echo"),
        ({"functions": []}, "functions"),
        ({"logprobs": True, "top_logprobs": 21}, "logprobs"),
        ({"n": 1.5}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [5]}, "messages"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": "json"}, "response_format"),
        ({"temperature": "hot"}, "temperature"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}
                ]
            },
            None,
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": "http://10.0.0.1/"}]}
                ]
            },
            None,
        ),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"stop": [""]}, "stop"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stream_options": 1}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": 3}, "logprobs"),
        ({"template": {"messages": 5}}, "template"),
        ({"template": {"tokenize": True}}, "template"),
    ],
)
def test_what_nobody_takes_is_refused(ask, change: dict[str, Any], param):
    response = ask(CHAT, {**HI, **change})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert next(iter(change)).partition("_")[0][:4] in error["message"] or "image" in error["message"]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/completions", {"prompt": []}),
        ("/v1/completions", {"prompt": [[]]}),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}),
        ("/v1/embeddings", {"input": "a", "normalize": "yes"}),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": -1}),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": True}),
    ],
)
def test_the_other_routes_refuse_what_they_cannot_honour(ask, route, body):
    response = ask(route, body)
    assert response.status_code == 400
    assert [*body][-1] in response.json()["error"]["message"]


def test_models_are_listed_and_others_refused(ask):
    rows = ask("/v1/models").json()["data"]
    assert [(row["id"], row["task"], row["owned_by"]) for row in rows] == [
        ("talker-1", "generate", "memserve"),
        ("also/this", "generate", "memserve"),
        ("lengths", "embed", "memserve"),
    ]
    assert [[*row["tasks"]] for row in rows] == [["generate"], ["generate"], ["embed", "rerank"]]
    assert ask("/v1/models/also/this").json()["max_model_len"] == 4096
    for response in (
        ask(CHAT, {**HI, "model": "gpt-9"}),
        ask("/v1/models/gpt-9"),
        ask(CHAT, {**HI, "model": 5}),
    ):
        assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")
    told = ask(CHAT, {**HI, "model": "gpt-9"}).json()["error"]
    assert ("talker-1" in told["message"], told["param"]) == (True, "model")


def test_counts_are_told(ask):
    ask(CHAT, HI)
    told = ask("/metrics").text
    assert 'memserve_requests_total{route="/v1/chat/completions",status="200"}' in told
    assert "memserve_requests_in_flight 1" in told
    assert 'memserve_tokens_total{model="talker-1",kind="completion"}' in told


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_whose_length_nobody_said_fits_the_context(start, stream):
    """The toy has 512 tokens in all, as many as an answer may have by default."""
    httpx = need("httpx", "test")
    _, url, where = start("--backend", "toy", "--task", "generate", "--name", "toy")
    asked = {**HI, "model": "toy"}
    key = {"authorization": f"Bearer {Path(where).read_text().strip()}"}
    with httpx.Client(headers=key, timeout=60) as client:
        told = client.post(f"{url}/chat/completions", json={**asked, "stream": stream})
        assert (told.status_code, "error" in told.text) == (200, False)
        for more in ({"max_tokens": 512}, {"messages": [{"role": "user", "content": "a" * 600}]}):
            told = client.post(f"{url}/chat/completions", json={**asked, "stream": stream, **more})
            error = told.json()["error"]
            assert (error["code"], error["n_ctx"]) == ("context_length_exceeded", 512)
            if "max_tokens" in more:  # what is told of the prompt does not grow with the answer
                assert error["n_prompt_tokens"] < 100
            else:
                assert error["n_prompt_tokens"] >= 600
