"""Other people's clients, unchanged, over the endpoint: they find what they expect of OpenAI's routes."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from extras import need
from talker import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from talker import Running

HI: list[Any] = [{"role": "user", "content": "add 7"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    },
}


@pytest.fixture(scope="module", params=["an engine", "openai upstream"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Over an engine, and over the backend `openai` whose server is that endpoint."""
    with running() as inner:
        if request.param == "an engine":
            yield inner
            return
        with running(upstream=inner.base_url) as outer:
            yield outer


@pytest.fixture
def sdk(endpoint: Running) -> Iterator[Any]:
    openai = need("openai", "dev")
    with openai.OpenAI(base_url=endpoint.base_url, api_key="k", max_retries=0, timeout=30) as client:
        yield client


def test_the_sdk_chats(sdk):
    answer = sdk.chat.completions.create(model="talker-1", messages=HI, n=2, temperature=1, logprobs=True)
    assert [choice.message.content for choice in answer.choices] == ["you said add 7", "you said add 71"]
    assert answer.choices[0].logprobs.content[0].bytes == [195, 188]
    assert answer.usage.prompt_tokens_details.cached_tokens == 1
    [call] = (
        sdk.chat.completions.create(model="talker-1", messages=HI, tools=[TOOL]).choices[0].message.tool_calls
    )
    assert (call.function.name, call.function.arguments) == ("add", '{"x": 7}')


def test_the_sdk_streams(sdk):
    with sdk.chat.completions.stream(
        model="talker-1", messages=HI, stream_options={"include_usage": True}
    ) as stream:
        final = [event for event in stream if event.type == "content.done"] and stream.get_final_completion()
    assert (final.choices[0].message.content, final.usage.total_tokens) == ("you said add 7", 5)
    with sdk.chat.completions.stream(model="talker-1", messages=HI, tools=[TOOL]) as stream:
        [call] = stream.get_final_completion().choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("add", '{"x": 7}')


def test_the_sdk_parses_into_a_class(sdk):
    pydantic = need("pydantic", "oracles")
    sum_of = pydantic.create_model("Sum", x=(int, ...), word=(str, ...))
    parsed = sdk.chat.completions.parse(model="talker-1", messages=HI, response_format=sum_of)
    assert parsed.choices[0].message.parsed == sum_of(x=7, word="word")


def test_the_sdk_asks_the_other_routes(sdk, endpoint):
    assert [model.id for model in sdk.models.list()][:2] == ["talker-1", "also/this"]
    assert sdk.models.retrieve("also/this").owned_by == "memserve"
    assert sdk.completions.create(model="talker-1", prompt="hi", logprobs=1).choices[0].logprobs.tokens == [
        "ü",
        "x",
    ]
    vectors = sdk.embeddings.create(model="lengths", input=["a", "bc"])
    assert [row.embedding for row in vectors.data] == [[1, 2, 3], [2, 3, 4]]


@pytest.mark.parametrize(
    ("said", "kind"),
    [("overflow", "BadRequestError"), ("broken", "InternalServerError"), ("slower", "RateLimitError")],
)  # fmt: skip
def test_the_sdk_raises_what_it_should(sdk, said, kind):
    openai = need("openai", "dev")
    message: Any = [{"role": "user", "content": f"fail {said}"}]
    with pytest.raises(getattr(openai, kind)):
        sdk.chat.completions.create(model="talker-1", messages=message)
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.chat.completions.create(model="gpt-9", messages=message)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="wrong").models.list()


def test_the_sdk_asks_for_responses(sdk):
    answer = sdk.responses.create(
        model="talker-1", input="hi", instructions="brief", reasoning={"effort": "low"}
    )
    assert (answer.output_text, answer.status, answer.usage.total_tokens) == ("you said hi", "completed", 5)
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    tool = {"type": "function", **TOOL["function"]}
    first = sdk.responses.create(model="talker-1", input=HI, tools=[tool])
    [call] = first.output
    assert (call.name, call.arguments) == ("add", '{"x": 7}')
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "8"}
    second = sdk.responses.create(model="talker-1", input=[*HI, call.to_dict(), result], tools=[tool])
    assert second.output_text == "you said 8"


def test_the_sdk_streams_responses(sdk):
    pydantic = need("pydantic", "oracles")
    with sdk.responses.stream(model="talker-1", input="hi you", reasoning={"effort": "low"}) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "you said hi you"
    assert kinds[0], kinds[-1] == ("response.created", "response.completed")
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 2
    sum_of = pydantic.create_model("Sum", x=(int, ...))
    parsed = sdk.responses.parse(model="talker-1", input="add 9", text_format=sum_of)
    assert parsed.output_parsed == sum_of(x=9)


@pytest.fixture
def thread_loop():
    """An event loop that is closed at the end: LiteLLM's plain calls would make one and leave it open."""
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@pytest.mark.filterwarnings("ignore")
def test_litellm(endpoint, monkeypatch, thread_loop):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would ask a server for prices
    litellm = need("litellm", "oracles")
    where: Any = {"api_base": endpoint.base_url, "api_key": "k"}
    answer = litellm.completion("openai/talker-1", HI, **where)
    assert answer.choices[0].message.content == "you said add 7"
    chunks = list(litellm.completion("openai/talker-1", HI, stream=True, **where))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "you said add 7"
    called = litellm.completion("openai/talker-1", HI, tools=[TOOL], tool_choice="required", **where)
    assert called.choices[0].message.tool_calls[0].function.arguments == '{"x": 7}'
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion("openai/talker-1", [{"role": "user", "content": "fail overflow"}], **where)
    vectors = litellm.embedding("openai/lengths", ["a"], **where)
    assert vectors.data[0]["embedding"] == [1, 2, 3]
    for kept in litellm.in_memory_llm_clients_cache.cache_dict.values():
        if isinstance(kept, need("openai", "dev").OpenAI):  # it never closes them itself
            kept.close()


@pytest.mark.parametrize("route", ["chat", "responses"])
async def test_pydantic_ai(endpoint, route):
    ai = need("pydantic_ai", "oracles")
    need("openai", "dev")
    from pydantic import create_model
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=endpoint.base_url, api_key="k")
    kind = {"chat": OpenAIChatModel, "responses": OpenAIResponsesModel}[route]
    model = kind("talker-1", provider=provider)
    assert (await ai.Agent(model).run("hi")).output == "you said hi"
    async with ai.Agent(model).run_stream("hi") as stream:
        assert await stream.get_output() == "you said hi"
    sum_of = create_model("Sum", x=(int, ...))
    assert (await ai.Agent(model, output_type=sum_of).run("add 7")).output == sum_of(x=7)
    native = ai.Agent(model, output_type=ai.NativeOutput(sum_of))
    assert (await native.run("add 8")).output == sum_of(x=8)
    agent = ai.Agent(model)
    given: list[int] = []

    @agent.tool_plain
    def add(x: int) -> str:
        given.append(x)
        return "done"

    assert (await agent.run("add 5")).output == "you said done"
    assert given == [5]
    await provider.client.close()


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA"])
def test_instructor(sdk, mode):
    instructor = need("instructor", "oracles")
    from pydantic import create_model

    sum_of = create_model("Sum", x=(int, ...))
    client = instructor.from_openai(sdk, mode=getattr(instructor.Mode, mode))
    assert client.create(model="talker-1", messages=HI, response_model=sum_of).x == 7


def test_langchains_standard_tests():
    need("langchain_tests", "oracles")
    need("langchain_openai", "oracles")
    suite = Path(__file__).with_name("langchain_suite.py")
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "filterwarnings=ignore",
        str(suite),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
    assert re.search(r"\b[4-9]\d passed", done.stdout), done.stdout[-300:]
