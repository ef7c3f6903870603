"""Other people's clients over an endpoint that stands elsewhere; test_upstreams.py starts both.

What a real model says is its own affair: here only the form is judged, which the clients' own readers hold.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from extras import need

URL, KEY = os.environ.get("ENDPOINT", ""), os.environ.get("ENDPOINT_KEY", "")
TOOLS = os.environ.get("ENDPOINT_TOOLS", "m")
"""The model whose template takes tools."""
if not URL:
    pytest.skip("ENDPOINT names none: test_upstreams.py does", allow_module_level=True)
HI: list[Any] = [{"role": "user", "content": "What colour is the sky? One word."}]
COLOURS = {"type": "string", "enum": ["red", "blue", "green"]}
SCHEMA = {
    "type": "object",
    "properties": {"colour": COLOURS},
    "required": ["colour"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "paint", "description": "paints", "parameters": SCHEMA}}
CHOSEN: Any = {"type": "function", "function": {"name": "paint"}}
integration = need("langchain_tests.integration_tests", "oracles")
langchain = need("langchain_openai", "oracles")


def answer() -> Any:
    """The class that typed answers are read into."""
    from typing import Literal

    from pydantic import ConfigDict, create_model

    return create_model(
        "Answer", __config__=ConfigDict(extra="forbid"), colour=(Literal["red", "blue", "green"], ...)
    )


def test_openai() -> None:
    with need("openai", "oracles").OpenAI(base_url=URL, api_key=KEY, max_retries=0) as sdk:
        told = sdk.chat.completions.create(
            model="m", messages=HI, max_tokens=8, logprobs=True, top_logprobs=2
        )
        assert told.usage.completion_tokens == len(told.choices[0].logprobs.content) <= 8
        stream = sdk.chat.completions.create(model="m", messages=HI, max_tokens=8, stream=True)
        said = "".join(one.choices[0].delta.content or "" for one in stream)
        assert said == told.choices[0].message.content
        several = sdk.chat.completions.create(model="m", messages=HI, n=2, temperature=1, max_tokens=4)
        assert len(several.choices) == 2
        parsed = sdk.chat.completions.parse(model="m", messages=HI, response_format=answer())
        assert parsed.choices[0].message.parsed.colour in COLOURS["enum"]
        called = sdk.chat.completions.create(model=TOOLS, messages=HI, tools=[TOOL], tool_choice=CHOSEN)
        assert called.choices[0].message.tool_calls[0].function.name == "paint"
        assert sdk.responses.create(model="m", input="hi", max_output_tokens=8).output_text


@pytest.mark.filterwarnings("ignore")
def test_litellm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = need("litellm", "oracles")
    where: Any = {"model": "openai/m", "messages": HI, "api_base": URL, "api_key": KEY, "max_tokens": 32}
    said = litellm.completion(**where).choices[0].message.content
    chunks = list(litellm.completion(stream=True, **where))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said
    where.update(model=f"openai/{TOOLS}", max_tokens=200)
    called = litellm.completion(tools=[TOOL], tool_choice=CHOSEN, **where)
    assert called.choices[0].message.tool_calls[0].function.name == "paint"
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(
            **{**where, "model": "openai/m", "messages": [{"role": "user", "content": "word " * 20_000}]}
        )


async def test_pydantic_ai() -> None:
    ai = need("pydantic_ai", "oracles")
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=URL, api_key=KEY)
    model = OpenAIChatModel("m", provider=provider)
    settings: Any = {"max_tokens": 16}
    assert (await ai.Agent(model, model_settings=settings).run("hi")).output
    tools = OpenAIChatModel(TOOLS, provider=provider)
    for asked, kind in ((tools, answer()), (model, ai.NativeOutput(answer()))):
        told = await ai.Agent(asked, output_type=kind).run("What colour is the sky?")
        assert told.output.colour in COLOURS["enum"]
    await provider.client.close()


@pytest.mark.parametrize("mode", ["TOOLS", "JSON_SCHEMA"])
def test_instructor(mode: str) -> None:
    instructor = need("instructor", "oracles")
    with need("openai", "oracles").OpenAI(base_url=URL, api_key=KEY, max_retries=0) as sdk:
        client = instructor.from_openai(sdk, mode=getattr(instructor.Mode, mode))
        model = TOOLS if mode == "TOOLS" else "m"
        assert client.create(model=model, messages=HI, response_model=answer()).colour in COLOURS["enum"]


class TestLangChain(integration.ChatModelIntegrationTests):
    """Its standard tests, but for those that judge what a model decides (tools and schemas stand above)."""

    @property
    def chat_model_class(self) -> Any:
        return langchain.ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"base_url": URL, "api_key": KEY, "model": "m", "stream_usage": True, "max_tokens": 24}

    @property
    def has_tool_calling(self) -> bool:
        return False

    @property
    def has_structured_output(self) -> bool:
        return False
