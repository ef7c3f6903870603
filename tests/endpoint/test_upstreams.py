"""Clients over the endpoint over a server of the same routes, transformers and the embedded model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from extras import need

HI: Any = [{"role": "user", "content": "add 7"}]
SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "integer"}},
    "required": ["x"],
    "additionalProperties": False,
}
FORM: Any = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA, "strict": True}}
TOOL: Any = {"type": "function", "function": {"name": "add", "description": "adds", "parameters": SCHEMA}}


def client(url: str, where: str) -> Any:
    key = Path(where).read_text().strip()
    return need("openai", "dev").OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120)


@pytest.mark.slow
def test_an_endpoint_over_an_endpoint(start, endpoint):
    """What the inner one can do is asked of it, and passed on: samples, tools, schemas, thoughts."""
    words = (
        "--backend",
        "openai",
        "--model",
        "talker-1",
        "--options",
        f"base_url={endpoint.base_url}",
        "api_key=k",
    )
    _, url, where = start(*words)
    with client(url, where) as sdk:
        told = sdk.chat.completions.create(model="talker-1", messages=HI, n=2, temperature=1, logprobs=True)
        assert [choice.message.content for choice in told.choices] == ["you said add 7", "you said add 71"]
        assert told.choices[0].logprobs.content[0].token == "ü"
        stream = sdk.chat.completions.create(model="talker-1", messages=HI, stream=True)
        assert "".join(one.choices[0].delta.content or "" for one in stream) == "you said add 7"
        [call] = (
            sdk.chat.completions.create(model="talker-1", messages=HI, tools=[TOOL])
            .choices[0]
            .message.tool_calls
        )
        assert call.function.arguments == '{"x": 7}'
        told = sdk.chat.completions.create(model="talker-1", messages=HI, response_format=FORM)
        assert told.choices[0].message.content == '{"x": 7}'
        told = sdk.responses.create(model="talker-1", input="hi", reasoning={"effort": "low"})
        assert [item.type for item in told.output] == ["reasoning", "message"]
        failed = [{"role": "user", "content": "fail overflow"}]
        with pytest.raises(need("openai", "dev").BadRequestError) as caught:
            sdk.chat.completions.create(model="talker-1", messages=failed)
        assert caught.value.code == "context_length_exceeded"


@pytest.mark.engine("embedded")
@pytest.mark.filterwarnings("ignore")
def test_the_embedded_model(start):
    _, url, where = start("--backend", "embedded", "--task", "generate", "--name", "m")
    with client(url, where) as sdk:
        told = sdk.chat.completions.create(
            model="m", messages=HI, max_tokens=8, logprobs=True, top_logprobs=2
        )
        assert told.usage.completion_tokens == len(told.choices[0].logprobs.content) == 8
        stream = sdk.chat.completions.create(model="m", messages=HI, max_tokens=8, stream=True)
        text = "".join(one.choices[0].delta.content or "" for one in stream)
        assert text == told.choices[0].message.content
        told = sdk.chat.completions.create(model="m", messages=HI, max_tokens=64, response_format=FORM)
        assert '"x"' in told.choices[0].message.content
        chosen: Any = {"type": "function", "function": {"name": "add"}}
        told = sdk.chat.completions.create(
            model="m", messages=HI, max_tokens=64, tools=[TOOL], tool_choice=chosen
        )
        assert told.choices[0].message.tool_calls[0].function.name == "add"


@pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=pytest.mark.engine(name)) for name in ("hf", "embedded")]
)
def test_other_peoples_clients(start, backend, weights, tmp_path):
    """They run where they are installed: in the environment of MEMSERVE_ORACLES, or in this one."""
    python = os.environ.get("MEMSERVE_ORACLES")
    if python is None:
        need("litellm", "oracles")
    plain = {"backend": backend, "task": "generate"}
    rows = [{"id": "m", **plain}]
    if backend == "hf":  # the template of a real model that is small enough takes no tools
        models = (("m", "smollm2"), ("tools", "tiny-tools"))
        exact = {**plain, "options": {"dtype": "float32"}}
        rows = [{"id": name, "model": str(weights / folder), **exact} for name, folder in models]
    (tmp_path / "models.json").write_text(json.dumps({"models": rows}))
    _, url, where = start("--config", str(tmp_path / "models.json"))
    named = {
        "ENDPOINT": url,
        "ENDPOINT_KEY": Path(where).read_text().strip(),
        "ENDPOINT_TOOLS": rows[-1]["id"],
    }
    world = {**os.environ, **named}
    words = [python or sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o"]
    suite = Path(__file__).with_name("clients_suite.py")
    done = subprocess.run(
        [*words, "filterwarnings=ignore", str(suite)], capture_output=True, text=True, env=world, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\b(1[5-9]|[2-9]\d) passed", done.stdout), done.stdout[-300:]
    print(done.stdout[-200:])
