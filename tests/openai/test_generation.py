"""What is sent, what is read, what is refused."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
from faulty_server import ANSWER, DONE, GOOD_STREAM, event, piece, reply, stream

import memserve
from memserve import Raw, errors
from memserve.protocol import Usage

OK = reply()
CHOICE = ANSWER["choices"][0]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}


def choice(message=None, **fields):
    return {**CHOICE, **({"message": {"role": "assistant", **message}} if message else {}), **fields}


def answering(*choices, **fields):
    return reply(200, {**ANSWER, "choices": list(choices), **fields})


def test_the_defaults_are_sent(server, open_generator):
    server.will(OK)
    answer = open_generator().generate("hi")
    post = server.posts[0]
    assert (post.method, post.path) == ("POST", "/v1/chat/completions")
    assert post.headers["authorization"] == "Bearer sk-very-secret-key"
    assert post.json == {
        "model": "name",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 512,
    }
    assert (answer.text, answer.finish_reason, answer.model) == ("ok", "stop", "name")
    assert answer.usage == Usage(3, 1, None)


def test_every_setting_is_sent(server, open_generator):
    server.will(answering(choice(), choice(index=1)))
    open_generator().generate(
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "你好 \N{SNOWMAN}"}],
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        stop=["a", "b"],
        n=2,
        logprobs=4,
        tools=[TOOL],
        tool_choice="auto",
        openai_presence_penalty=0.5,
    )
    assert server.posts[0].json == {
        "model": "name",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "你好 \N{SNOWMAN}"},
        ],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["a", "b"],
        "n": 2,
        "logprobs": True,
        "top_logprobs": 4,
        "tools": [TOOL],
        "tool_choice": "auto",
        "presence_penalty": 0.5,
    }


def test_raw_text_and_token_ids_go_to_completions(server, open_generator):
    server.will(reply(200, {"choices": [{"index": 0, "text": " ok", "finish_reason": "length"}]}))
    generator = open_generator()
    assert generator.generate(Raw("once upon")).text == " ok"
    assert generator.generate([1, 2, 3], logprobs=2).finish_reason == "length"
    assert [post.path for post in server.posts] == ["/v1/completions"] * 2
    assert [post.json["prompt"] for post in server.posts] == ["once upon", [1, 2, 3]]
    assert server.posts[1].json["logprobs"] == 2


def test_a_list_is_answered_in_order(server, open_generator):
    async def echo(wire):
        content = server.posts[-1].json["messages"][0]["content"]
        await answering(choice({"content": content}))(wire)

    server.will(echo)
    answers = open_generator(concurrency=1).generate([str(i) for i in range(50)])
    assert [a.text for a in answers] == [str(i) for i in range(50)]


def test_errors_are_raised_or_returned(server, open_generator):
    server.will(OK, reply(400, {"error": {"message": "no"}}), OK)
    generator = open_generator(concurrency=1)
    answers = generator.generate(["a", "b", "c"], on_error="return")
    assert [a.text for a in answers] == ["ok", None, "ok"]
    assert isinstance(answers[1].error, errors.BadRequest)
    server.posts.clear()
    with pytest.raises(errors.BadRequest):
        generator.generate(["a", "b", "c"])


def test_n_samples(server, open_generator):
    server.will(answering(choice({"content": "b"}, index=1), choice({"content": "a"}, index=0)))
    answer = open_generator().generate("hi", n=2, temperature=1)
    assert [sample.text for sample in answer.samples] == ["a", "b"]
    assert answer.text == "a"


@pytest.mark.parametrize("choices", [[choice()], [choice()] * 2, [choice()] * 3])
def test_another_number_of_samples_is_no_answer(choices, server, open_generator):
    server.will(answering(*choices))
    with pytest.raises(errors.BadAnswer):
        open_generator().generate("hi", n=2)


def test_more_than_was_asked_for(server, open_generator):
    server.will(answering(choice(), choice(index=1)))
    with pytest.raises(errors.BadAnswer):
        open_generator().generate("hi")


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (choice({"content": None}), {"text": None, "finish_reason": "stop"}),
        (choice({"content": ""}), {"text": ""}),
        (choice({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), {"text": "ab"}),
        (
            choice({"content": None, "reasoning_content": "hm"}, finish_reason="length"),
            {"text": None, "reasoning": "hm", "finish_reason": "length"},
        ),
        (choice({"content": "a", "reasoning": "hm"}), {"text": "a", "reasoning": "hm"}),
        (
            choice({"content": None, "refusal": "I cannot"}),
            {"text": None, "refusal": "I cannot", "finish_reason": "content_filter"},
        ),
        (
            choice({"content": "cut"}, finish_reason="content_filter"),
            {"text": "cut", "finish_reason": "content_filter"},
        ),
        (choice(finish_reason="eos_token"), {"finish_reason": "stop"}),
        (choice(finish_reason=None), {"finish_reason": None}),
        (choice(finish_reason="banana"), {"finish_reason": None}),
        (choice({"content": "half \ud800"}), {"text": "half \ufffd"}),
    ],
)
def test_odd_answers_are_read(found, wanted, server, open_generator):
    server.will(answering(found))
    answer = open_generator().generate("hi")
    assert {name: getattr(answer, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    "calls",
    [
        {
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"a": 1}'}}
            ]
        },
        {"tool_calls": [{"id": "c1", "function": {"name": "now", "arguments": {"a": 1}}}]},
    ],
    ids=["text", "object"],
)
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_tool_calls(calls, finish, server, open_generator):
    server.will(answering(choice({"content": None, **calls}, finish_reason=finish)))
    answer = open_generator().generate("hi", tools=[TOOL])
    assert (answer.text, answer.finish_reason) == (None, "tool_calls")
    assert [(call.id, call.name, call.arguments) for call in answer.tool_calls] == [("c1", "now", '{"a": 1}')]


def new(**delta):
    return piece().replace(b'"delta": {}', b'"delta": ' + json.dumps(delta).encode())


def part(**call):
    return new(tool_calls=[call])


A, B, NOW = ("c1", "now", '{"a": 1}'), ("c2", "now", '{"a": 1}'), {"name": "now", "arguments": '{"a": 1}'}
BEGUN, ENDED = {"name": "now", "arguments": '{"a"'}, {"arguments": ": 1}"}


@pytest.mark.parametrize(("finish", "parts", "calls"), [
    ("tool_calls", [part(index=0, id="c1", function={"name": "now", "arguments": ""}),
                    part(index=0, function={"arguments": '{"a"'}), part(index=0, function=ENDED)], [A]),
    ("stop", [part(index=0, id="c1", function=NOW)], [A]),  # OpenAI, where the call was named
    ("tool_calls", [part(id="c1", function=NOW), part(id="c2", function=NOW)], [A, B]),  # Gemini's dialect
    ("stop", [part(index=0, id=own, function=NOW) for own in ("c1", "c2")], [A, B]),  # Ollama
    ("tool_calls", [part(index=0, id="c1", function={**BEGUN, **more}) for more in ({}, ENDED)], [A]),
    ("tool_calls", [part(index=0, id="c1", function={"name": "now", "arguments": {"a": 1}})], [A]),
    ("tool_calls", [part(index=0, id="c1", function={"name": "now"})], [("c1", "now", "{}")]),
    ("function_call", [new(function_call=BEGUN), new(function_call=ENDED)], [("call_0", *A[1:])]),
])  # fmt: skip
def test_streamed_tool_calls(finish, parts, calls, server, open_generator):
    server.will(stream(*parts, piece(finish=finish), DONE))
    last = list(open_generator().stream("hi", tools=[TOOL]))[-1]
    assert [(c.id, c.name, c.arguments) for c in last.tool_calls] == calls
    assert last.finish_reason == "tool_calls"


def test_thoughts_among_the_parts_of_the_content(server, open_generator):
    """As Mistral sends them."""
    thought, text = (
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "ok"},
    )
    server.will(answering(choice({"content": [thought, text]})))
    answer = open_generator().generate("hi")
    assert (answer.reasoning, answer.text) == ("Hm.", "ok")
    server.will(stream(new(content=[thought]), new(content=[text]), piece(finish="stop"), DONE))
    deltas = list(open_generator().stream("hi"))
    assert ["".join(getattr(d, kind) for d in deltas) for kind in ("reasoning", "text")] == ["Hm.", "ok"]


@pytest.mark.parametrize("cut", [1, 2])
def test_characters_that_are_cut_between_two_events_are_joined(cut, server, open_generator):
    halves = ["a\ud83d", "\ude00b\ud83d", "\ude01"]
    said, thought = (stream(*(new(**{name: one}) for one in halves[: cut + 1]), piece(finish="stop"), DONE)
                     for name in ("content", "reasoning_content"))  # fmt: skip
    for kind, told in (("text", said), ("reasoning", thought)):
        server.will(told)
        whole = "".join(getattr(one, kind) for one in open_generator().stream("hi"))
        assert whole == "".join(halves[: cut + 1]).encode("utf-16", "surrogatepass").decode(
            "utf-16", "replace"
        ) or (
            kind == "reasoning" and whole == "a\U0001f600b"  # a thought's last half is no text's
        )


def test_logprobs_of_both_shapes(server, open_generator):
    chat = {"content": [{"token": "o", "logprob": -0.5, "top_logprobs": [{"token": "o", "logprob": -0.5}]}]}
    server.will(answering(choice(logprobs=chat)))
    found = open_generator().generate("hi", logprobs=1).logprobs
    assert [(t.token, t.logprob, t.top) for t in found] == [("o", -0.5, (("o", -0.5),))]
    plain = {"tokens": ["o"], "token_logprobs": [-0.5], "top_logprobs": [{"o": -0.5}]}
    server.will(reply(200, {"choices": [{"text": "o", "finish_reason": "stop", "logprobs": plain}]}))
    server.posts.clear()
    assert open_generator().generate(Raw("hi"), logprobs=1).logprobs == found


def test_logprobs_that_are_no_numbers(server, open_generator, caplog):
    body = json.dumps(
        {
            **ANSWER,
            "choices": [
                choice(
                    logprobs={
                        "content": [
                            {"token": "a", "logprob": math.nan},
                            {"token": "b", "logprob": -math.inf},
                            {"token": "c", "logprob": None},
                        ]
                    }
                )
            ],
        }
    )
    server.will(reply(200, body.encode()))
    found = open_generator().generate("hi", logprobs=0).logprobs
    assert [token.logprob for token in found] == [None, -9999.0, None]
    assert "not a number" in caplog.text


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None}, "many", {"prompt_tokens": -1}, [1]])
def test_usage_may_be_missing(usage, server, open_generator):
    server.will(answering(choice(), usage=usage))
    assert open_generator().generate("hi").usage == Usage()


def test_cached_tokens(server, open_generator):
    server.will(
        answering(choice(), usage={"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}})
    )
    assert open_generator().generate("hi").usage.cached_tokens == 8


def test_another_model_answers(server, open_generator, caplog):
    caplog.set_level(logging.WARNING, logger="memserve")
    server.will(answering(choice(), model="something-else"))
    generator = open_generator()
    assert generator.generate("hi").model == "something-else"
    generator.generate("hi")
    assert caplog.text.count("something-else") == 1


def test_the_system_behind_the_name_changes(server, open_generator, caplog):
    server.will(*(answering(choice(), system_fingerprint=mark) for mark in ("a", "a", None, "b")))
    generator = open_generator()
    for _ in range(3):
        generator.generate("hi")
    assert caplog.text == ""
    generator.generate("hi")
    assert caplog.text.count("fingerprint") == 1


def test_a_dated_name_is_the_same_model(server, open_generator, caplog):
    server.will(answering(choice(), model="name-2024-08-06"))
    open_generator().generate("hi")
    assert caplog.text == ""


def test_latin1_and_plain_text(server, open_generator, caplog):
    body = json.dumps({**ANSWER, "choices": [choice({"content": "café"})]}, ensure_ascii=False)
    server.will(reply(200, body.encode("latin-1"), content_type="text/plain; charset=latin1"))
    assert open_generator().generate("hi").text == "café"
    server.will(reply(200, body.encode("latin-1"), content_type="text/plain"))
    server.posts.clear()
    with pytest.raises(errors.BadAnswer, match="not UTF-8"):
        open_generator(max_retries=0).generate("hi")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"top_k": 5}, errors.Unsupported),
        ({"min_p": 0.1}, errors.Unsupported),
        ({"regex": "a+"}, errors.Unsupported),
        ({"choices": ["a"]}, errors.Unsupported),
        ({"truncate": "left"}, errors.Unsupported),
        ({"logprobs": 21}, errors.Unsupported),
        ({"temprature": 1}, errors.Unsupported),
        ({"openai_no_such": 1}, errors.Unsupported),
        ({"pangu_x": 1}, errors.Unsupported),
        ({"max_tokens": 0}, errors.InvalidInput),
        ({"temperature": -1}, errors.InvalidInput),
        ({"temperature": math.nan}, errors.InvalidInput),
        ({"top_p": 0}, errors.InvalidInput),
        ({"stop": [""]}, errors.InvalidInput),
        ({"n": 0}, errors.InvalidInput),
        ({"logprobs": True}, errors.InvalidInput),
        ({"seed": 2**64}, errors.InvalidInput),
        ({"tool_choice": "auto"}, errors.InvalidInput),
        ({"schema": "no"}, errors.InvalidInput),
        ({"schema": {"a": object()}}, errors.InvalidInput),
        ({"on_error": "ignore"}, errors.InvalidInput),
    ],
)
def test_refused_before_any_work(settings, kind, server, open_generator):
    server.will(OK)
    with pytest.raises(kind) as caught:
        open_generator().generate("hi", **settings)
    assert server.posts == []
    if kind is errors.Unsupported:
        assert caught.value.backend == "openai"
        assert caught.value.setting in (*settings, f"truncate={settings.get('truncate')!r}")


@pytest.mark.parametrize("model", ["o3-mini", "gpt-5", "openai/gpt-5-mini"])
def test_reasoning_models_refuse_temperature(model, server, quick):
    server.will(OK)
    with memserve.generator(model, backend="openai", base_url=server.base_url) as generator:
        generator.generate("hi")
        with pytest.raises(errors.Unsupported, match="temperature"):
            generator.generate("hi", temperature=0.5)
        assert not generator.capabilities.temperature
    assert {"temperature", "top_p", "max_tokens"}.isdisjoint(server.posts[0].json)
    assert server.posts[0].json["max_completion_tokens"] == 512


def test_a_schema_is_sent_and_the_answer_proven(server, open_generator):
    server.will(answering(choice({"content": '{"a": 1}'})))
    generator = open_generator()
    assert generator.generate("hi", schema=SCHEMA).text == '{"a": 1}'
    assert server.posts[0].json["response_format"]["json_schema"]["schema"] == SCHEMA
    for content in ("free text", '{"b": 1}', "[]"):
        server.will(answering(choice({"content": content})))
        with pytest.raises(errors.BadAnswer, match="ignored the constraint"):
            generator.generate("hi", schema=SCHEMA)


def test_vllm_spells_constraints_its_own_way(server, open_generator):
    server.will(answering(choice({"content": "yes"})))
    generator = open_generator(dialect="vllm")
    generator.generate("hi", choices=["yes", "no"], top_k=5)
    body = server.posts[0].json
    assert body["structured_outputs"] == {"choice": ["yes", "no"]}
    assert (body["top_k"], body["repetition_penalty"]) == (5, 1.0)
    server.will(answering(choice({"content": "perhaps"})))
    with pytest.raises(errors.BadAnswer):
        generator.generate("hi", choices=["yes", "no"])


def test_mindie_stops_at_its_cap(server, open_generator):
    server.will(OK)
    with pytest.raises(errors.Unsupported, match="max_tokens=513"):
        open_generator(dialect="mindie").generate("hi", max_tokens=513)
    open_generator(dialect="mindie", max_tokens_cap=4096).generate("hi", max_tokens=4096)
    assert server.posts[0].json["max_tokens"] == 4096


def test_a_stream_asks_for_usage(server, open_generator):
    server.will(stream(*GOOD_STREAM))
    deltas = list(open_generator().stream("hi"))
    assert server.posts[0].json["stream_options"] == {"include_usage": True}
    assert deltas[-1].usage == Usage(3, 2)


def test_a_streamed_event_may_hold_a_message(server, open_generator):
    row = {"choices": [{"index": 0, "message": {"content": "all of it"}, "finish_reason": "stop"}]}
    server.will(stream(event(row), DONE))
    assert [delta.text for delta in open_generator().stream("hi")] == ["all of it", ""]


def test_a_stream_whose_generator_is_closed_says_so(server, open_generator):
    server.will(stream(piece("a"), piece("b"), piece(finish="stop"), DONE))
    generator = open_generator()
    deltas = generator.stream("hi")
    next(deltas)
    generator.close()
    with pytest.raises(errors.Closed):
        list(deltas)


def test_a_header_that_is_a_key_goes_before_the_environments(server, monkeypatch, open_generator):
    """The environment's key is another server's."""
    monkeypatch.setenv("OPENAI_API_KEY", "environment")
    server.will(OK)
    mine = {"authorization": "Bearer mine"}
    where = {"backend": "openai", "base_url": server.base_url, "dialect": "generic"}
    with memserve.generator("name", headers=mine, **where) as generator:
        generator.generate("hi")
    assert server.posts[0].headers["authorization"] == "Bearer mine"
    with pytest.raises(errors.InvalidInput, match="two keys"):
        memserve.generator("name", headers=mine, api_key="k", **where)


def test_a_stream_carries_one_sample(open_generator):
    with pytest.raises(errors.Unsupported):
        open_generator().stream("hi", n=2)
    with pytest.raises(errors.InvalidInput):
        open_generator().stream(["a", "b"])


def test_the_environment_names_key_and_address(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " from-the-environment\n")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url + "/")
    server.will(OK)
    with memserve.generator("name", backend="openai") as generator:
        generator.generate("hi")
    assert server.posts[0].headers["authorization"] == "Bearer from-the-environment"
    assert server.posts[0].path == "/v1/chat/completions"


@pytest.mark.parametrize(
    "options",
    [
        {"tiemout": 2},
        {"timeout": 0},
        {"timeout": "soon"},
        {"max_retries": -1},
        {"dialect": "klingon"},
        {"api_key": "a\nb"},
        {"concurrency": 0},
        {"headers": [("a", "b")]},
        {"headers": {"a": "b\nc"}},
        {"headers": {"a": 1}},
        {"prompts": {"query": "q: "}},
        {"base_url": "http://127.0.0.1:1/v1/chat/completions"},
    ],
)
def test_senseless_options_are_refused(options, open_generator):
    with pytest.raises(errors.InvalidInput):
        open_generator(**options)


def test_used_after_close(open_generator):
    generator = open_generator()
    generator.close()
    generator.close()
    with pytest.raises(errors.Closed):
        generator.generate("hi")


ROWS = json.loads((Path(__file__).parents[1] / "data/overflow_words.json").read_text())
WORDS = [(row["words"], row["tokens"], row["limit"]) for row in ROWS]


@pytest.mark.parametrize(("words", "tokens", "limit"), WORDS)
def test_every_engines_words_for_an_overflow(words, tokens, limit, server, open_generator):
    server.will(reply(400, {"error": {"message": words, "type": "BadRequestError", "code": 400}}))
    with pytest.raises(errors.ContextOverflow) as caught:
        open_generator().generate("hi")
    assert (caught.value.tokens, caught.value.limit) == (tokens, limit)
    assert words[:40] in str(caught.value)
    assert len(server.posts) == 1


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no such type"},
        {"type": []},
        {"type": "object", "properties": ["a"]},
        {"properties": {"a": {"type": "text"}}},
        {"anyOf": [{"type": 3}]},
        {"items": "string"},
        {"required": "a"},
    ],
)
def test_a_schema_that_cannot_be_meant_is_refused(schema, server, open_generator):
    with pytest.raises(errors.InvalidInput, match="schema"):
        open_generator().generate("hi", schema=schema)
    assert server.posts == []


def test_greedy_samples_are_all_alike(server, open_generator):
    server.will(OK)
    answer = open_generator(dialect="vllm").generate("hi", n=3)
    assert "n" not in server.posts[0].json
    assert [sample.text for sample in answer.samples] == ["ok"] * 3


def test_what_the_wire_does_not_tell(server, open_generator):
    server.health = reply(
        200, {"data": [{"id": "other", "max_model_len": 1}, {"id": "name", "max_model_len": 512}]}
    )
    known = open_generator(dialect="vllm").capabilities
    assert (known.context, known.deterministic, known.tools) == (512, False, False)
    told = open_generator(dialect="vllm", context="99", deterministic="true", tools=True).capabilities
    assert (told.context, told.deterministic, told.tools) == (99, True, True)
    with pytest.raises(errors.InvalidInput):
        open_generator(context="many")


def test_a_model_that_vllm_does_not_serve(server, open_generator):
    server.health = reply(200, {"data": [{"id": "other", "max_model_len": 1}]})
    with pytest.raises(errors.NotFound, match="'name': it serves other"):
        open_generator(dialect="vllm")


def test_an_answer_cut_by_the_context_is_an_overflow(server, open_generator):
    server.will(
        answering(choice(finish_reason="length"), usage={"prompt_tokens": 90, "completion_tokens": 10})
    )
    generator = open_generator(context=100)
    with pytest.raises(errors.ContextOverflow) as caught:
        generator.generate("hi", max_tokens=20)
    assert (caught.value.tokens, caught.value.limit) == (110, 100)
    assert generator.generate("hi", max_tokens=10).finish_reason == "length"
    assert generator.generate("hi").finish_reason == "length"
    assert [post.json["max_tokens"] for post in server.posts] == [20, 10, 100]
    with pytest.raises(errors.ContextOverflow):
        generator.generate("hi", max_tokens=100)
    assert len(server.posts) == 3
