"""What callers do wrong, or on purpose: wrong keys, broken bodies, crowds, and leaving in the middle."""

from __future__ import annotations

import asyncio
import json
import socket

import aiohttp
import pytest
from extras import need
from talker import running
from waiting import until

httpx = need("httpx", "test")
CHAT = "/v1/chat/completions"
WAIT = {"messages": [{"role": "user", "content": "wait"}]}
HI = {"messages": [{"role": "user", "content": "hi"}]}
ROUTES = ("/v1/models", "/v1/models/x", "/metrics", "/v1/nothing")


@pytest.mark.parametrize("said", [None, "", "k", "Bearer", "Bearer kk", "Bearer K", "bearer k", "Bearer k ü"])
def test_without_the_key_nothing_is_told(endpoint, said):
    headers = {} if said is None else {b"authorization": said.encode()}
    base = endpoint.base_url.removesuffix("/v1")
    with httpx.Client(base_url=base, headers=headers) as client:
        answers = [client.get(route) for route in ROUTES]
        answers += [client.post(route, json=HI) for route in (CHAT, "/v1/embeddings", "/v1/rerank")]
        assert {answer.status_code for answer in answers} == {401}
        assert {answer.json()["error"]["code"] for answer in answers} == {"invalid_api_key"}
        assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"5", b'"x"', b"null", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 50_000, b"{} {}",
     b'{"messages": NaN}', b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
     b'{"messages": [{"role": "user", "content": "a"}], "temperature": Infinity}',
     b'{"messages": [{"role": "user", "content": "a"}], "seed": 1e400}'],
)  # fmt: skip
def test_a_broken_body_is_told(ask, body):
    response = ask(CHAT, content=body)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("more", "param"),
    [('"max_tokens": 1, "max_tokens": 2', None),
     ('"max_tokens": 1, "max_completion_tokens": 2', "max_completion_tokens"),
     ('"messages": []', None), ('"reasoning_effort": "much"', "reasoning_effort"),
     ('"max_completion_tokens": -1', "max_completion_tokens"), ('"temperature": "hot"', "temperature"),
     ('"temprature": 1', "temprature"), ('"logprobs": true, "top_logprobs": 99', "logprobs"),
     ('"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}',
      "response_format"),
     ('"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/$defs/gone"}}}',
      "response_format")],
)  # fmt: skip
def test_what_is_wrong_is_named_as_the_body_names_it(ask, more, param):
    """Twice the same key, one setting under two names, and a schema that nothing keeps, too."""
    body = f'{{"messages": [{{"role": "user", "content": "hi"}}], {more}}}'
    for stream in ("", ', "stream": true'):
        response = ask(CHAT, content=f"{body[:-1]}{stream}}}".encode())
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, param), error


def test_an_effort_that_the_model_does_not_take_is_named():
    key = {"authorization": "Bearer k"}
    with running(able={"thinking": frozenset()}) as found, httpx.Client(headers=key) as client:
        chat = client.post(f"{found.base_url}/chat/completions", json={**HI, "reasoning_effort": "low"})
        asked = {"input": "hi", "reasoning": {"effort": "low"}}
        newer = client.post(f"{found.base_url}/responses", json=asked)
    assert [one.json()["error"]["param"] for one in (chat, newer)] == ["reasoning_effort", "reasoning"]


def test_a_method_or_route_that_is_not_there(ask):
    assert ask(CHAT).status_code == 405
    for place in ("/chat/completions", "/v1/nothing"):  # the first: a base URL without its end
        said = ask(place, {}).json()["error"]["message"]
        assert said.startswith(f"Not Found: POST {place} (all routes"), said


def test_a_body_above_the_limit_is_refused():
    with running(body=1000) as found, httpx.Client(headers={"authorization": "Bearer k"}) as client:
        for send in (b"x" * 2000, iter([b"x" * 600] * 3)):
            response = client.post(f"{found.base_url}/chat/completions", content=send)
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (413, None)
            assert "more than 1000 bytes: --max-body" in error["message"]


def test_without_a_key_a_browsers_page_is_refused():
    with running(key=None) as found:
        assert httpx.get(f"{found.base_url}/models").status_code == 200
        page = httpx.post(f"{found.base_url}/chat/completions", json=HI, headers={"origin": "http://evil"})
        assert page.status_code == 403


async def test_who_leaves_frees_the_place():
    """Whole answers, streams that have not begun, and streams that have."""
    with running() as found:
        for stream in (False, True):
            async with aiohttp.ClientSession(headers={"authorization": "Bearer k"}) as session:
                post = session.post(f"{found.base_url}/chat/completions", json={**WAIT, "stream": stream})
                task = asyncio.ensure_future(post)
                while found.engine.waiting < 1 + stream:
                    await asyncio.sleep(0.01)
                task.cancel()
        async with aiohttp.ClientSession(headers={"authorization": "Bearer k"}) as session:
            text = {"messages": [{"role": "user", "content": "now wait here"}], "stream": True}
            answer = await session.post(f"{found.base_url}/chat/completions", json=text)
            await answer.content.readany()
            answer.close()
        counts, headers = found.base_url.replace("/v1", "/metrics"), {"authorization": "Bearer k"}
        until(lambda: 'completions",status="499"} 3' in httpx.get(counts, headers=headers).text)
        assert found.engine.given_up == found.engine.waiting >= 2


async def test_two_hundred_at_once_and_a_queue_that_is_full():
    with running(concurrency=150, queue=50) as found:
        url, headers = f"{found.base_url}/chat/completions", {"authorization": "Bearer k"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
            answers = await asyncio.gather(*(session.post(url, json=HI) for _ in range(200)))
            assert {answer.status for answer in answers} == {200}
            assert len({(await answer.json())["id"] for answer in answers}) == 200
            waiting = [asyncio.ensure_future(session.post(url, json=WAIT)) for _ in range(200)]
            while found.engine.waiting < 200:
                await asyncio.sleep(0.01)
            refused = await session.post(url, json=HI)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert (await refused.json())["error"]["code"] == "overloaded"
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            until(lambda: found.engine.given_up == 200)
            async with session.post(url, json=HI) as answer:
                assert answer.status == 200


@pytest.mark.parametrize("begins", [b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n", b""])
def test_a_caller_who_does_not_send_the_body(begins):
    with running(patience=0.2) as found, socket.create_connection(("127.0.0.1", found.port)) as wire:
        wire.sendall(
            begins + b"authorization: Bearer k\r\ncontent-length: 9\r\n\r\n{"
            if begins
            else b"GARBAGE\r\n\r\n"
        )
        wire.settimeout(60)
        assert (wire.recv(4096) or b"X 0").split(b" ")[1] in (b"0", b"400")


def test_a_caller_who_does_not_read(monkeypatch):
    """The stream is given up; it does not wait for ever with its place taken."""
    with running(patience=0.3) as found, socket.create_connection(("127.0.0.1", found.port)) as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        text = "word " * 300_000 + "wait"
        body = json.dumps({"messages": [{"role": "user", "content": text}], "stream": True}).encode()
        lines = (
            f"POST {CHAT} HTTP/1.1",
            "host: x",
            "authorization: Bearer k",
            f"content-length: {len(body)}",
        )
        head = "\r\n".join(lines) + "\r\n\r\n"
        wire.sendall(head.encode() + body)
        headers = {"authorization": "Bearer k"}
        counts = found.base_url.replace("/v1", "/metrics")
        until(
            lambda: 'completions",status=' in httpx.get(counts, headers=headers, timeout=60).text, every=0.1
        )


MALFORMED = [
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer very-secret-key\r\n\r\n",
    b"GET /v1/models HTTP/1.1\nHost: x\nAuthorization: Bearer very-secret-key\n\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: a\r\n Bearer very-secret-key\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer very-secret-key\r\n\r\n",
    b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"a" * 100,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


@pytest.mark.parametrize("words", MALFORMED, ids=range(len(MALFORMED)))
def test_what_is_no_http_is_told_as_all_errors_are_and_shows_no_key(endpoint, words, caplog):
    """A header line that cannot be read may be the one with the key: neither answer nor log repeats it."""
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=30) as line:
        line.sendall(words)
        said = b"".join(iter(lambda: line.recv(65536), b""))
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert "very-secret-key" not in said.decode() + caplog.text


@pytest.mark.parametrize(
    ("encoding", "body"), [("gzip", b"not gzip"), ("deflate", b"\xff\xff"), ("gzip", b"\x1f\x8b\x08\x00")]
)
def test_a_body_that_is_not_what_its_encoding_says_is_told(ask, encoding, body):
    response = ask(CHAT, content=body, headers={"content-encoding": encoding})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.parametrize(
    "item",
    [{"role": "user", "content": [{"type": "input_text"}]},
     {"role": "user", "content": [{"type": "input_text", "text": 5}]},
     {"type": "function_call_output", "call_id": "a"}],
)  # fmt: skip
def test_an_item_without_its_text_never_becomes_the_word_none(ask, endpoint, item):
    before = len(endpoint.engine.asked)
    response = ask("/v1/responses", {"input": [item]})
    assert (response.status_code, len(endpoint.engine.asked)) == (400, before)


@pytest.mark.parametrize(
    "change",
    [{"tools": [{"type": "function"}]}, {"tools": [{"type": "function", "function": {"name": 5}}]},
     {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "thing"}}}]},
     {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#"}}}]},
     {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
     {"messages": [{"role": "user", "content": [{"text": "hi"}]}]},
     {"messages": [{"role": "user", "content": ["hi"]}]}],
)  # fmt: skip
def test_tools_and_parts_that_are_none_are_told_before_any_work(ask, endpoint, change):
    before = len(endpoint.engine.asked)
    response = ask(CHAT, {**HI, **change})
    assert (response.status_code, response.json()["error"]["param"]) == (400, next(iter(change)))
    assert len(endpoint.engine.asked) == before


@pytest.mark.parametrize(
    "more",
    [{"store": True}, {"best_of": 1}, {"modalities": ["text"]}, {"verbosity": "medium"}, {"prediction": None},
     {"tools": [{"type": "function", "function": {"name": "now"}}]}],
)  # fmt: skip
def test_what_asks_for_what_happens_anyway_is_taken(ask, more):
    assert ask(CHAT, {**HI, **more}).status_code == 200
