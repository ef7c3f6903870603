"""Others' code proves ours honest: OpenAI's SDK reads our fake server, httpx clients carry our calls."""

from __future__ import annotations

import asyncio

import pytest
from extras import need
from faulty_server import GOOD_STREAM, reply, stream

import memserve
from memserve import errors

OK = reply()


@pytest.fixture
def sdk(server):
    openai = need("openai", "dev")
    with openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0, timeout=5) as client:
        yield client


def test_the_sdk_reads_the_same_answer(server, sdk, open_generator):
    server.will(OK)
    theirs = sdk.chat.completions.create(
        model="name", messages=[{"role": "user", "content": "hi"}], temperature=0.0, top_p=1.0, max_tokens=512
    )
    ours = open_generator().generate("hi")
    assert theirs.choices[0].message.content == ours.text
    assert theirs.usage.prompt_tokens == ours.usage.prompt_tokens
    sent, own = server.posts
    assert sent.json == own.json
    assert sent.path == own.path
    assert sent.headers["authorization"] == "Bearer k"


def test_the_sdk_reads_the_same_stream(server, sdk, open_generator):
    server.will(stream(*GOOD_STREAM))
    theirs = sdk.chat.completions.create(
        model="name",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(theirs)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "".join(delta.text for delta in open_generator().stream("hi"))
    assert chunks[-1].usage.completion_tokens == 2


def test_the_sdk_reads_the_same_vectors(server, sdk):
    row = {"object": "embedding", "index": 0, "embedding": [1.0, 2.0]}
    server.will(reply(200, {"object": "list", "data": [row], "model": "e", "usage": {"prompt_tokens": 1}}))
    theirs = sdk.embeddings.create(model="e", input=["a"], encoding_format="float").data[0].embedding
    with memserve.embedder("e", backend="openai", base_url=server.base_url) as embedder:
        assert embedder.embed(["a"]).vectors[0].tolist() == theirs
    assert server.posts[0].json == server.posts[1].json


def test_a_handed_in_client_is_used_and_stays_open(server, open_generator):
    httpx = need("httpx", "test")
    server.will(OK, stream(*GOOD_STREAM), reply(429, b"{}", retry_after="0"), OK)
    with httpx.Client(headers={"x-mine": "yes"}) as client:
        generator = open_generator(http_client=client)
        assert generator.generate("hi").text == "ok"
        assert "".join(delta.text for delta in generator.stream("hi")) == "ok"
        assert generator.generate("hi").text == "ok"
        generator.close()
        assert not client.is_closed
    assert server.posts[0].headers["x-mine"] == "yes"
    assert server.posts[0].headers["authorization"] == "Bearer sk-very-secret-key"


async def test_a_handed_in_async_client(server, open_generator):
    httpx = need("httpx", "test")
    server.will(OK)
    async with httpx.AsyncClient() as client:
        generator = open_generator(http_client=client)
        answers = await asyncio.gather(*(generator.agenerate("hi") for _ in range(5)))
        assert [answer.text for answer in answers] == ["ok"] * 5
        with pytest.raises(errors.InvalidInput, match="another event loop"):
            generator.generate("hi")


@pytest.mark.parametrize("location", ["http://evil.test/"])
def test_a_handed_in_client_does_not_follow_redirects(location, server, open_generator):
    httpx = need("httpx", "test")
    server.will(reply(307, b"", location=location))
    with httpx.Client(follow_redirects=True) as client, pytest.raises(errors.Redirected):
        open_generator(http_client=client).generate("hi")
    assert len(server.posts) == 1


def test_a_handed_in_client_that_finds_nobody(quick):
    httpx = need("httpx", "test")
    with (
        httpx.Client() as client,
        memserve.generator(
            "m",
            backend="openai",
            base_url="http://127.0.0.1:9/v1",
            timeout=0.5,
            max_retries=1,
            http_client=client,
        ) as generator,
        pytest.raises(errors.ConnectionFailed),
    ):
        generator.generate("hi")


def test_what_is_no_client_is_refused(open_generator):
    with pytest.raises(errors.InvalidInput, match="http_client"):
        open_generator(http_client=object())
