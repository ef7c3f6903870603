"""Every misbehaviour of tests/data/faults.json, with the right reaction in bounded time."""

from __future__ import annotations

import gzip
import json
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from faulty_server import (
    ANSWER,
    DONE,
    GOOD_STREAM,
    SSE_HEAD,
    USAGE,
    chunked,
    drip,
    event,
    piece,
    raw,
    reply,
    stream,
)

from memserve import errors

FAULTS = json.loads((Path(__file__).parents[1] / "data/faults.json").read_text())["faults"]
NAMES = {fault["name"] for fault in FAULTS}
OK = reply()
BOUND = 12.0
covered: set[str] = set()

ELSEWHERE = {
    "429_huge",
    "429_seconds",
    "429_http_date",
    "429_ms",
    "429_no_header_reset_hdr",  # test_throttle.py
    "503_loading",
    "connection_refused",
    "stale_keepalive",
    "dns_flap",
    "half_open",  # test_way.py
    "sse_stall",
    "redirect_307_other_host",
    "tls_untrusted",
    "tls_cut",
    "huge_json_body",  # test_safety.py
    "nan_logprobs",
    "model_swap",
    "reasoning_only",
    "latin1_body",
    "wrong_content_type",  # tests/openai
    "emb_short",
    "emb_base64",  # tests/openai/test_embedding.py
    "pangu_3267",
    "401_bad_aksk",
    "token_expiry_midrun",
    "clock_skew",
    "sse_message_not_delta",  # tests/pangu
    "sigkill_client",
    "disk_full",  # tests/run
    "http2_goaway",  # HTTP/1.1 is all that is spoken
}


def failing(status, body, **headers):
    return reply(status, body, **headers)


OVERFLOW = (
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens."
)
CONTEXT = {"error": {"message": OVERFLOW, "type": "invalid_request_error", "code": "context_length_exceeded"}}
QUOTA = {
    "error": {
        "message": "You exceeded your current quota",
        "type": "insufficient_quota",
        "code": "insufficient_quota",
    }
}
HTML = b"<html><body>sign in to the wifi</body></html>"

RETRIED = {
    "429_garbage": failing(429, {"error": {"message": "slow down"}}, retry_after="soon"),
    "503_then_ok": failing(503, {"error": {"message": "busy"}}),
    "500_html": failing(500, HTML, content_type="text/html"),
    "529": failing(529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    "424": failing(424, {"error": "failed to enqueue", "error_type": "Generation Error"}),
    "408_409": failing(409, {"error": {"message": "lock"}}),
    "empty_body_200": reply(200, b""),
    "error_in_200": reply(200, {"error": {"message": "try again", "type": "server_error"}}),
    "empty_choices": reply(200, {**ANSWER, "choices": []}),
    "finish_abort": reply(200, {**ANSWER, "choices": [{**ANSWER["choices"][0], "finish_reason": "abort"}]}),
    "truncated_content_length": raw(b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"id": '),
    "truncated_chunked": raw(b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"id"\r\n'),
    "bad_gzip": reply(200, b"\x1f\x8b\x08\x00rubbish rubbish", content_encoding="gzip"),
}
NEVER = {
    "429_quota": (failing(429, QUOTA), errors.QuotaExceeded),
    "400_context": (failing(400, CONTEXT), errors.ContextOverflow),
    "400_flat": (failing(400, {"object": "error", "message": "no such field"}), errors.BadRequest),
    "405_415_422": (failing(422, {"detail": "unprocessable"}), errors.BadRequest),
    "redirect_302": (failing(302, b"", location="http://other.test/"), errors.Redirected),
    "html_200": (reply(200, HTML, content_type="text/html"), errors.BadAnswer),
}
STREAM_RETRIED = {
    "sse_no_done": stream(piece("half")),
    "sse_cut": chunked(piece("half"), whole=False),
    "sse_error_event": stream(
        piece("half"), event({"error": {"message": "boom", "type": "server_error"}}), DONE
    ),
    "sse_bad_utf8": stream(b"data: \xff\xfe\n\n"),
    "sse_bad_json": stream(b"data: {not json}\n\n"),
}
STREAM_ACCEPTED = {
    "sse_crlf": stream(*(e.replace(b"\n", b"\r\n") for e in GOOD_STREAM)),
    "sse_unknown_event": stream(b"event: ping\ndata: {}\n\n", *GOOD_STREAM),
    "sse_usage_chunk": stream(*GOOD_STREAM),
    "sse_json_instead": OK,
    "sse_multiline_data": stream(
        piece("ok"),
        b'data: {"choices": [{"index": 0, "delta": {},\ndata: "finish_reason": "stop"}]}\n\n',
        DONE,
    ),
    "sse_u2028": stream(
        b'data: {"choices": [{"index": 0, "delta": {"content": "ok"}}], "x": "a\xe2\x80\xa8b\xc2\x85"}\n\n',
        piece(finish="stop"),
        DONE,
    ),
    "sse_after_done": stream(*GOOD_STREAM, piece("late")),
    "sse_cumulative": stream(piece("o"), piece("ok"), piece("ok"), piece(finish="stop"), DONE),
}


def test_every_fault_has_its_test():
    tested = {*RETRIED, *NEVER, *STREAM_RETRIED, *STREAM_ACCEPTED, *ELSEWHERE}
    assert tested == NAMES


@pytest.mark.parametrize("name", RETRIED)
def test_what_passes_is_asked_again(name, server, open_generator):
    server.will(RETRIED[name], OK)
    assert open_generator().generate("hi").text == "ok"
    assert len(server.posts) == 2


@pytest.mark.parametrize("name", [*RETRIED])
def test_what_does_not_pass_ends_after_the_retries(name, server, open_generator):
    server.will(RETRIED[name])
    with pytest.raises(errors.RemoteError) as caught:
        open_generator().generate("hi")
    assert caught.value.retryable
    assert len(server.posts) == (2 if name == "empty_choices" else 3)


@pytest.mark.parametrize("name", NEVER)
def test_what_is_final_is_asked_once(name, server, open_generator):
    act, kind = NEVER[name]
    server.will(act, OK)
    with pytest.raises(kind) as caught:
        open_generator().generate("hi")
    assert not caught.value.retryable
    assert len(server.posts) == 1
    assert caught.value.status or name == "html_200"


@pytest.mark.parametrize("name", STREAM_RETRIED)
def test_a_broken_stream_raises_or_comes_clean(name, server, open_generator):
    server.will(STREAM_RETRIED[name], stream(*GOOD_STREAM))
    texts, usages = [], []
    try:
        for delta in open_generator().stream("hi"):
            texts.append(delta.text)
            usages += [delta.usage] if delta.usage else []
    except errors.RemoteError:
        assert "".join(texts) == "half"
        assert usages == []
    else:
        assert "".join(texts) == "ok"
        assert len(usages) == 1


@pytest.mark.parametrize("name", STREAM_RETRIED)
def test_a_stream_that_never_comes_whole_raises(name, server, open_generator):
    server.will(STREAM_RETRIED[name])
    with pytest.raises(errors.RemoteError):
        list(open_generator().stream("hi"))
    assert len(server.posts) <= 3


@pytest.mark.parametrize("name", STREAM_ACCEPTED)
def test_an_odd_stream_is_read_right(name, server, open_generator):
    server.will(STREAM_ACCEPTED[name])
    deltas = list(open_generator().stream("hi"))
    assert "".join(delta.text for delta in deltas) == "ok"
    assert deltas[-1].finish_reason == "stop"
    assert sum(delta.usage is not None for delta in deltas) <= 1
    assert len(server.posts) == 1


@pytest.mark.parametrize("value", ["-5", "NaN", "inf", "soon", ""])
def test_a_senseless_retry_after_is_ignored(value, server, open_generator, slept):
    server.will(failing(429, {"error": {"message": "slow down"}}, retry_after=value), OK)
    assert open_generator().generate("hi").text == "ok"
    assert 0 < sum(slept) < 2


def test_a_context_overflow_has_both_numbers(server, open_generator):
    server.will(failing(400, CONTEXT))
    with pytest.raises(errors.ContextOverflow) as caught:
        open_generator().generate("hi")
    assert (caught.value.tokens, caught.value.limit, caught.value.status) == (9000, 8192, 400)


def test_the_words_of_a_page_of_an_error_are_kept(server, open_generator):
    server.will(failing(500, HTML, content_type="text/html"))
    with pytest.raises(errors.ServerFailed, match="sign in to the wifi") as caught:
        open_generator().generate("hi")
    assert caught.value.status == 500


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"3",
        b'"ok"',
        b"{}",
        b'{"choices": null}',
        b'{"choices": {}}',
        b'{"choices": [null]}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": {"content": 3}}]}',
        b'{"choices": [{"message": "ok"}]}',
        b'{"choices": [], "choices": [{"message": {"content": "twice"}, "finish_reason": "stop"}]}',
        b"[" * 100_000,
        b"\x00\xff\xfe",
        b"{'single': 'quotes'}",
        b"data: {}\n\n",
    ],
)
def test_rubbish_is_never_an_answer(body, server, open_generator):
    server.will(reply(200, body))
    with pytest.raises(errors.BadAnswer):
        open_generator().generate("hi")
    assert len(server.posts) <= 3


def test_bytes_that_are_not_http(server, open_generator):
    server.will(raw(b"SSH-2.0-OpenSSH_9.6\r\n"))
    with pytest.raises(errors.RemoteError):
        open_generator().generate("hi")
    assert len(server.posts) <= 3


def test_comments_do_not_keep_a_stream_alive(server, open_generator):
    server.will(drip(SSE_HEAD, b": still here\n\n", 0.05))
    limits = {"timeout": 3600, "idle_timeout": 0.3, "first_byte_timeout": 0.4}
    with pytest.raises(errors.TimedOut):
        list(open_generator(**limits, max_retries=1).stream("hi"))


def test_a_slow_body_ends_with_the_attempt(server, open_generator):
    server.will(drip(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b" ", 0.05))
    with pytest.raises(errors.TimedOut):
        open_generator(timeout=0.5, max_retries=1).generate("hi")
    assert len(server.posts) == 2


def test_a_compressed_answer_is_read(server, open_generator):
    server.will(reply(200, gzip.compress(json.dumps(ANSWER).encode()), content_encoding="gzip"))
    assert open_generator().generate("hi").text == "ok"


def test_dates_are_read_against_the_servers_clock(server, open_generator, slept):
    hour = 3600
    late = {"date": formatdate(time.time() + hour, usegmt=True)}
    server.will(failing(429, b"{}", retry_after=formatdate(time.time() + hour + 1, usegmt=True), **late), OK)
    assert open_generator().generate("hi").text == "ok"
    assert 0.9 <= sum(slept) <= 2.2


def test_usage_comes_once_though_every_chunk_has_it(server, open_generator):
    many = [piece(text, usage={"prompt_tokens": 3, "completion_tokens": i}) for i, text in enumerate("abc")]
    server.will(stream(*many, piece(finish="stop"), USAGE, DONE))
    deltas = list(open_generator().stream("hi"))
    assert [d.usage.completion_tokens for d in deltas if d.usage] == [2]
