"""What servers and networks do to every provider alike, each with its reaction in bounded time.

Beside each fault stands its number in the project's list of faults.
"""

from __future__ import annotations

import gzip
import json
import logging
import time

import pytest
from faulty_server import drip, raw, reply

import memserve
from memserve import errors

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.fixture
def ok(wire):
    return reply(200, wire.good)


def test_a_good_answer(wire, server, opened, ok):
    server.will(ok)
    answer = opened().generate("hi")
    assert (answer.text, answer.finish_reason) == ("ok", "stop")


@pytest.mark.parametrize("status", [408, 409, 424, 425, 500, 502, 503, 504, 529])  # 10, 13, 14, 15
def test_what_passes_is_retried(status, server, opened, ok):
    server.will(reply(status, b"{}"), ok)
    assert opened().generate("hi").text == "ok"
    assert len(server.posts) == 2


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 415, 422])  # 26
def test_what_stays_wrong_is_not(status, server, opened):
    server.will(reply(status, b'{"message": "no"}'))
    with pytest.raises(errors.MemserveError) as caught:
        opened().generate("hi")
    assert caught.value.status == status
    assert not caught.value.retryable
    assert len(server.posts) == 1


def test_a_page_of_an_error_is_kept(server, opened):  # 12
    server.will(reply(500, b"<html>upstream sad</html>", content_type="text/html"))
    with pytest.raises(errors.ServerFailed, match="upstream sad"):
        opened().generate("hi")
    assert len(server.posts) == 3


@pytest.mark.parametrize("header", [{"retry_after": "0.3"}, {"retry_after_ms": "300"}])  # 1, 3
def test_a_throttle_is_waited_out(header, server, opened, ok, slept):
    server.will(reply(429, b"{}", **header), ok)
    assert opened().generate("hi").text == "ok"
    assert 0.3 <= sum(slept) <= 0.33


def test_a_day_is_not_waited_for(server, opened, slept):  # 4
    began = time.time()
    server.will(reply(429, b"{}", retry_after="86400"))
    with pytest.raises(errors.Throttled) as caught:
        opened().generate("hi")
    assert slept == []
    assert began + 86400 <= caught.value.retry_at <= time.time() + 86400


@pytest.mark.parametrize("value", ["-5", "NaN", "inf", "soon"])  # 5
def test_a_pause_that_makes_no_sense(value, server, opened, ok):
    server.will(reply(429, b"{}", retry_after=value), ok)
    assert opened().generate("hi").text == "ok"


@pytest.mark.parametrize("status", [301, 302, 307, 308])  # 27, 28
def test_redirects_are_refused(status, server, opened):
    server.will(reply(status, b"", location="http://evil.test/x"))
    with pytest.raises(errors.Redirected):
        opened().generate("hi")
    assert len(server.posts) == 1


def test_a_web_page_is_no_answer(server, opened):  # 34
    server.will(reply(200, b"<html>log in</html>", content_type="text/html"))
    with pytest.raises(errors.BadAnswer, match="text/html"):
        opened().generate("hi")
    assert len(server.posts) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"null", b'"text"', b"[]", b'{"a":1,"a":2}'])  # 33
def test_a_body_that_is_none(body, server, opened, ok):
    server.will(reply(200, body), ok)
    assert opened().generate("hi").text == "ok"
    server.will(reply(200, body))
    with pytest.raises(errors.BadAnswer):
        opened().generate("hi")


def test_another_content_type_is_taken(wire, server, opened):  # 35, 53
    body = json.dumps(wire.good).encode()
    server.will(
        reply(200, body, content_type="text/plain"),
        reply(200, body, content_type="text/plain; charset=latin1"),
    )
    generator = opened()
    assert [generator.generate("hi").text for _ in range(2)] == ["ok", "ok"]


def test_a_short_body(wire, server, opened, ok):  # 44
    body = json.dumps(wire.good).encode()
    head = HEAD + b"content-length: %d\r\n\r\n" % (len(body) + 9)
    server.will(raw(head + body), ok)
    assert opened().generate("hi").text == "ok"


def test_a_cut_chunked_body(wire, server, opened, ok):  # 45
    body = json.dumps(wire.good).encode()
    server.will(raw(HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body)), ok)
    assert opened().generate("hi").text == "ok"


def test_a_broken_archive(wire, server, opened, ok):  # 51
    packed = gzip.compress(json.dumps(wire.good).encode())
    server.will(reply(200, packed, content_encoding="gzip"))
    generator = opened()
    assert generator.generate("hi").text == "ok"
    server.posts.clear()
    server.will(reply(200, packed[:-9] + b"x" * 9, content_encoding="gzip"), ok)
    assert generator.generate("hi").text == "ok"
    assert len(server.posts) == 2


def test_silence_has_an_end(server, opened):  # 49
    server.will(raw(b"", hang=True))
    with pytest.raises(errors.TimedOut):
        opened(timeout=0.3, max_retries=1).generate("hi")
    assert len(server.posts) == 2


def test_a_connection_that_went_stale(server, opened, ok):  # 47
    server.will(ok, raw(b"", reset=True), ok)
    generator = opened(max_retries=0)
    generator.generate("hi")
    assert generator.generate("hi").text == "ok"


def test_nobody_listens(wire):  # 82
    options = {**wire.options, "timeout": 0.5, "max_retries": 1, "base_url": "http://127.0.0.1:9"}
    with (
        memserve.generator(wire.model, backend=wire.backend, **options) as generator,
        pytest.raises(errors.ConnectionFailed),
    ):
        generator.generate("hi")


def test_a_good_stream(wire, server, opened):
    server.will(raw(wire.head + b"".join(wire.pieces)))
    deltas = list(opened().stream("hi"))
    assert "".join(delta.text for delta in deltas) == "ok"
    assert deltas[-1].finish_reason == "stop"


def test_a_stream_that_breaks_at_once_is_repeated(wire, server, opened):  # 58
    server.will(raw(wire.head), raw(wire.head + b"".join(wire.pieces)))
    assert "".join(delta.text for delta in opened().stream("hi")) == "ok"
    assert len(server.posts) == 2


@pytest.mark.parametrize("keep", [1, 2])  # 58, 60
def test_a_stream_that_breaks_later_raises(keep, wire, server, opened):
    server.will(raw(wire.head + b"".join(wire.pieces[:keep])))
    with pytest.raises(errors.ConnectionFailed):
        list(opened().stream("hi"))
    assert len(server.posts) == 1


def test_a_stream_that_stalls(wire, server, opened):  # 74
    server.will(raw(wire.head + wire.pieces[0], hang=True))
    with pytest.raises(errors.TimedOut):
        list(opened(idle_timeout=0.3).stream("hi"))
    assert len(server.posts) == 1


def test_comments_do_not_keep_a_stream_alive(wire, server, opened):
    if wire.backend == "bedrock":
        pytest.skip("Amazon's framing has no comments")
    server.will(drip(wire.head + wire.pieces[0], b": still here\n\n", 0.05))
    with pytest.raises(errors.TimedOut):
        list(opened(idle_timeout=0.4).stream("hi"))


def test_one_body_instead_of_a_stream(server, opened, ok):  # 73
    server.will(ok)
    assert "".join(delta.text for delta in opened().stream("hi")) == "ok"


@pytest.mark.parametrize(
    "broken", [b"data: {not json}\n\n", b'data: {"x": "\xff\xfe"}\n\n', b"data: [1]\n\n"]
)
def test_an_event_that_is_none(broken, wire, server, opened):  # 71, 72
    if wire.backend == "bedrock":
        pytest.skip("Amazon's framing is broken in tests/bedrock/test_frames.py")
    server.will(raw(wire.head + broken), raw(wire.head + b"".join(wire.pieces)))
    assert "".join(delta.text for delta in opened().stream("hi")) == "ok"


def test_a_key_echoed_anywhere_is_masked(server, opened, caplog):
    text = "bad key very-secret-value-77"
    server.will(
        reply(
            400,
            {"message": text, "error": {"message": text, "code": "x"}},
            x_request_id="very-secret-value-77",
        )
    )
    generator = opened()
    with caplog.at_level(logging.DEBUG), pytest.raises(errors.MemserveError) as caught:
        generator.generate("hi")
    seen = (
        repr(caught.value)
        + str(vars(caught.value))
        + caplog.text
        + repr(generator)
        + repr(generator.identity)
    )
    assert "very-secret" not in seen


async def test_awaited_from_another_loop(server, opened, ok):
    server.will(ok)
    generator = opened()
    assert (await generator.agenerate("hi")).text == "ok"
    assert [answer.text for answer in await generator.agenerate(["a"] * 9)] == ["ok"] * 9


@pytest.mark.parametrize("backend", ["anthropic", "bedrock", "gemini", "pangu"])
def test_an_empty_base_url_is_no_default(backend: str) -> None:
    with pytest.raises(errors.InvalidInput, match="base_url is empty"):
        memserve.generator("some-model", backend=backend, base_url="", api_key="k")
