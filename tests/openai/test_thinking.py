"""Thinking on servers of OpenAI's dialect: what is sent, and thoughts that come in the text."""

from __future__ import annotations

import pytest
from faulty_server import ANSWER, DONE, event, piece, reply, stream

from memserve import errors
from memserve.protocol import Request, Usage
from memserve_openai import dialect

TEXT = "<think>\nIs it Paris? É…\n</think>\n\nParis é <think> fin"
THOUGHT, SAID = "Is it Paris? É…", "Paris é <think> fin"


def answered(content, finish="stop", **message):
    body = {"role": "assistant", "content": content, **message}
    return reply(200, {**ANSWER, "choices": [{"index": 0, "message": body, "finish_reason": finish}]})


def chunks(pieces, finish="stop"):
    return stream(*map(piece, pieces), piece(finish=finish), DONE)


def streamed(generator):
    deltas = list(generator.stream("hi"))
    return "".join(d.reasoning for d in deltas) or None, "".join(d.text for d in deltas), deltas[-1]


@pytest.mark.parametrize(
    ("dialect", "model", "wanted", "sent"),
    [
        ("vllm", "Qwen/Qwen3-8B", False, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("vllm", "Qwen/Qwen3-8B", 64, {"chat_template_kwargs": {"enable_thinking": True},
                                       "thinking_token_budget": 64, "max_tokens": 576}),
        ("sglang", "deepseek-ai/DeepSeek-V3.1", True, {"chat_template_kwargs": {"thinking": True}}),
        ("lmdeploy", "mine", False, {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}),
        ("llamacpp", "Qwen3-4B-GGUF", True, {"chat_template_kwargs": {"enable_thinking": True}}),
        ("mindie", "qwen3", False, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("vllm", "Qwen/QwQ-32B", True, {}),
        ("vllm", "meta-llama/Llama-3.1-8B", False, {}),
        ("openai", "gpt-5.1", False, {"reasoning_effort": "none"}),
        ("openai", "gpt-5.2", True, {"reasoning_effort": "medium"}),
        ("openai", "o3-mini", True, {}),
    ],
)  # fmt: skip
def test_what_is_sent(server, open_generator, dialect, model, wanted, sent):
    server.will(answered("ok"))
    open_generator(model, dialect=dialect).generate("hi", thinking=wanted)
    open_generator(model, dialect=dialect).generate("hi")
    told, plain = (post.json for post in server.posts if post.path.endswith("completions"))
    assert {name: value for name, value in told.items() if value != plain.get(name)} == sent


@pytest.mark.parametrize(
    ("dialect", "model", "wanted"),
    [("generic", "qwen3", False), ("sglang", "qwen3", 64), ("vllm", "QwQ-32B", False),
     ("openai", "gpt-5", False), ("vllm", "Qwen2.5-7B", True), ("openai", "gpt-4o", True),
     ("openai", "gpt-5.1", 64)],
)  # fmt: skip
def test_what_cannot_be_had_is_refused(server, open_generator, dialect, model, wanted):
    with pytest.raises(errors.Unsupported, match="thinking"):
        open_generator(model, dialect=dialect).generate("hi", thinking=wanted)
    assert server.posts == []


def test_variables_of_the_template_are_sent_beside_the_switch(server, open_generator):
    server.will(answered("ok"))
    generator = open_generator("qwen3", dialect="sglang")
    generator.generate("hi", thinking=False, template={"a": 1}, openai_chat_template_kwargs={"b": 2})
    assert server.posts[-1].json["chat_template_kwargs"] == {"enable_thinking": False, "a": 1, "b": 2}
    with pytest.raises(errors.Unsupported, match="template"):
        open_generator("gpt-4o", dialect="openai").generate("hi", template={"a": 1})


@pytest.mark.parametrize("model", ["mine", "Qwen/Qwen3-8B", "deepseek-ai/DeepSeek-R1"])
def test_tags_in_the_text_are_cut_out_wherever_a_stream_breaks(server, open_generator, model):
    generator = open_generator(model)
    for opened in (False, True) if "R1" in model else (False,):
        text = TEXT.removeprefix("<think>") if opened else TEXT
        server.will(answered(text))
        answer = generator.generate("hi")
        assert (answer.reasoning, answer.text) == (THOUGHT, SAID)
        for at in range(len(text)):
            server.will(chunks([text[:at], text[at:]]))
            assert streamed(generator)[:2] == (THOUGHT, SAID)
        server.will(chunks(list(text)))
        assert streamed(generator)[:2] == (THOUGHT, SAID)


OPENED = [  # when the template of a model writes the opening tag: never told, on, off
    ("MiniMaxAI/MiniMax-M2.5", (True, True, None)),
    ("LGAI-EXAONE/EXAONE-Deep-7.8B", (True, True, None)),
    ("baidu/ERNIE-4.5-21B-A3B-Thinking", (True, True, None)),
    ("stepfun-ai/Step-3.7-Flash", (True, True, None)),
    ("allenai/Olmo-3-7B-Think", (True, True, None)), ("zai-org/GLM-5.3-BF16", (True, True, None)),
    ("Qwen/Qwen3.6-27B", (True, True, False)), ("zai-org/GLM-4.7-Flash", (True, True, False)),
    ("moonshotai/Kimi-K2.5", (True, True, False)),
    ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", (True, True, False)),
    ("deepseek-ai/DeepSeek-V3.2", (False, True, False)),
    ("deepseek-ai/DeepSeek-V4-Pro", (False, True, False)),
    ("Qwen/Qwen3-8B", (False, False, False)), ("zai-org/GLM-4.6", (False, False, False)),
]  # fmt: skip


@pytest.mark.parametrize(("model", "opened"), OPENED)
def test_a_thought_whose_opening_tag_the_template_wrote(server, open_generator, model, opened):
    generator = open_generator(model, dialect="vllm")
    tag = "</thought>" if "EXAONE" in model else "</think>"
    for wanted, inside in zip((None, True, False), opened, strict=True):
        if inside is None:  # cannot be switched off
            continue
        text = f"{THOUGHT}\n{tag}\n\n{SAID}" if inside else SAID
        right = (THOUGHT if inside else None, SAID)
        server.will(answered(text))
        answer = generator.generate("hi", thinking=wanted)
        assert (answer.reasoning, answer.text) == right, wanted
        server.will(chunks(list(text)))
        deltas = list(generator.stream("hi", thinking=wanted))
        said = "".join(d.reasoning for d in deltas) or None, "".join(d.text for d in deltas)
        assert said == right, wanted


BRACKETED = [
    ("ibm-granite/granite-3.3-8b-instruct",
     f"<think>{THOUGHT}</think>\n<response>{SAID}</response>", THOUGHT),
    ("ibm-granite/granite-3.2-8b-instruct",
     f"Here is my thought process: {THOUGHT}\n\nHere is my response: {SAID}", THOUGHT),
    ("ibm-granite/granite-3.3-8b-instruct", f"<response>{SAID}</response>", None),
    ("openai/gpt-oss-20b", f"<|channel|>final<|message|>{SAID}", None),
    ("mine", f"<|START_RESPONSE|>{SAID}<|END_RESPONSE|>", None),
]  # fmt: skip


@pytest.mark.parametrize(("model", "text", "thought"), BRACKETED)
def test_what_brackets_an_answer_is_cut_off_with_a_thought_or_without(
    server, open_generator, model, text, thought
):
    generator = open_generator(model)
    server.will(answered(text))
    answer = generator.generate("hi")
    assert (answer.reasoning, answer.text) == (thought, SAID)
    for at in range(len(text)):
        server.will(chunks([text[:at], text[at:]]))
        assert streamed(generator)[:2] == (thought, SAID)


@pytest.mark.parametrize("text", ["<think> is a tag", "Write <think>a</think>", "Hello", " <thin", ""])
def test_text_about_tags_stays(server, open_generator, text):
    for model in ("mine", "Qwen2.5-7B-Instruct"):
        server.will(answered(text))
        whole = open_generator(model).generate("hi")
        assert (whole.text, whole.reasoning) == (text, None)
        server.will(chunks(list(text)))
        assert streamed(open_generator(model))[1] == text
    server.will(answered("<think>a</think>b"))
    assert open_generator("Qwen2.5-7B-Instruct").generate("hi").text == "<think>a</think>b"


def test_an_empty_thought_is_none_and_a_cut_one_leaves_no_text(server, open_generator):
    server.will(answered("<think>\n\n</think>\n\nParis"))
    answer = open_generator("qwen3").generate("hi")
    assert (answer.reasoning, answer.text) == (None, "Paris")
    server.will(answered("<think>\nAm I", "length"))
    answer = open_generator("qwen3").generate("hi")
    assert (answer.reasoning, answer.text) == ("Am I", None)
    server.will(chunks(["<think>\nAm", " I"], "length"))
    thought, text, final = streamed(open_generator("qwen3"))
    assert (thought, text, final.finish_reason) == ("Am I", "", "length")


def test_a_server_with_a_parser_is_left_as_it_is(server, open_generator):
    server.will(answered("Paris </think>", reasoning_content="hm"))
    answer = open_generator("deepseek-r1").generate("hi")
    assert (answer.reasoning, answer.text) == ("hm", "Paris </think>")
    server.will(answered("Paris", reasoning_content=None))
    assert open_generator("deepseek-r1").generate("hi").text == "Paris"
    thought = event({"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]})
    server.will(stream(thought, piece("<think>", "stop"), DONE))
    assert streamed(open_generator("deepseek-r1"))[:2] == ("hm", "<think>")


def test_tokens_of_thought_are_read(server, open_generator):
    usage = {"prompt_tokens": 3, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}}
    server.will(reply(200, {**ANSWER, "usage": usage}))
    assert open_generator().generate("hi").usage == Usage(3, 9, None, 7)


@pytest.mark.parametrize(("host", "model", "modes", "thoughts"), [
    ("api.deepseek.com", "deepseek-chat", {"on", "off"}, True),
    ("api.moonshot.cn", "kimi-k2-thinking", {"on"}, True),
    ("api.moonshot.ai", "kimi-k2.5", {"on", "off"}, True), ("api.openai.com", "gpt-4o", set(), False),
])  # fmt: skip
def test_hosts_that_switch_thoughts_and_want_them_back(host, model, modes, thoughts):
    known = dialect.choose(None, host, model)
    able = dialect.capabilities(known, model, "generate")
    assert (able.thinking, able.thoughts) == (modes, thoughts)
    if "off" in modes:
        request = Request(prompt="Hi", thinking=False)
        assert dialect.thinking_fields(known, model, request, {}) == {"thinking": {"type": "disabled"}}
