"""What a server says survives into the error, and what it echoes of a key does not."""

from __future__ import annotations

import asyncio
import gzip
import html
import json
import urllib.parse

import pytest
from faulty_server import ANSWER, Wire, raw, reply

import memserve
from memserve import errors
from memserve.http import Mask, known_errors
from memserve.http.failure import error_of

WORDS = "The reason is this"
KEY = "sk-a+b/c=d&e"


@pytest.mark.parametrize(
    "shape",
    [
        {"error": WORDS},
        {"errors": [{"message": WORDS}]},
        {"detail": [{"loc": ["body"], "msg": WORDS}]},
        {"type": "about:blank", "title": WORDS, "status": 400},
        {"error": {"code": "x", "innererror": {"message": WORDS}}},
        {"error": {"type": WORDS}},
        WORDS,
    ],
)
def test_words_in_any_shape_are_kept(shape, server, open_generator):
    server.will(reply(400, json.dumps(shape).encode()))
    with pytest.raises(errors.BadRequest, match=WORDS):
        open_generator().generate("hi")


@pytest.mark.parametrize(
    "act",
    [
        raw(b"HTTP/1.1 403 X\r\ncontent-length: 999\r\n\r\n" + WORDS.encode()),
        raw(b"HTTP/1.1 403 X\r\nconnection: close\r\n\r\n" + WORDS.encode() + b" " * 5 * 2**20),
        reply(403, gzip.compress(WORDS.encode() + b" " * 5 * 2**20), content_encoding="gzip"),
    ],
    ids=["cut", "huge", "huge when decoded"],
)
def test_the_beginning_of_a_reason_is_kept(act, server, open_generator):
    server.will(act)
    with pytest.raises(errors.PermissionDenied, match=WORDS):
        open_generator().generate("hi")


def test_a_refusal_whose_reason_stalls_is_still_a_refusal(server, open_generator):
    async def stall(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 401 X\r\ncontent-length: 999\r\n\r\n" + WORDS.encode())
        await wire.reader.read()

    server.will(stall)
    with pytest.raises(errors.AuthenticationFailed, match=WORDS):
        open_generator(timeout=1).generate("hi")
    assert len(server.posts) == 1


@pytest.mark.parametrize(
    "written",
    [
        urllib.parse.quote(KEY),
        urllib.parse.quote(KEY, safe=""),
        html.escape(KEY),
        KEY.replace("/", "\\/"),
        KEY.replace("+", "\\u002B").replace("/", "&#x2F;").replace("=", "&#61;"),
    ],
)
def test_a_key_is_masked_however_it_is_written(written):
    assert Mask([KEY])(f"no such key: {written}.") == "no such key: ***."


def test_an_answer_is_not_named_after_the_key(server, open_generator):
    server.will(reply(200, {**ANSWER, "model": "m-sk-very-secret-key", "id": "sk-very-secret-key"}))
    answer = open_generator(api_key="sk-very-secret-key").generate("hi")
    assert (answer.model, answer.request_id) == ("m-***", "***")


def test_the_proxys_password_is_masked_too(server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://me:hunter-2@127.0.0.1:{server.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    server.will(reply(407, b"who is me:hunter-2?"))
    with (
        memserve.generator("m", backend="openai", base_url="http://far.test/v1", api_key="k") as generator,
        pytest.raises(errors.PermissionDenied) as caught,
    ):
        generator.generate("hi")
    assert "hunter" not in str(caught.value)


def test_nothing_more_is_sent_once_closed(server, open_generator):
    generator = open_generator(timeout=1, max_retries=5)

    async def close(wire: Wire) -> None:
        generator.close()
        await reply(500, b"{}")(wire)

    server.will(close)
    with pytest.raises(errors.Closed):
        asyncio.run(generator.agenerate("hi"))
    assert len(server.posts) == 1


@pytest.mark.parametrize("url", ["", "http://a b/v1", "http://<host>/v1"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(errors.InvalidInput, match="base_url"):
        memserve.generator("m", backend="openai", base_url=url, api_key="k")


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": ["a"], "token_logprobs": 7},
        {"content": [{"token": "a", "logprob": -1, "top_logprobs": 7}]},
        {"content": [{"token": "a", "logprob": 10**400}]},
    ],
)
def test_a_shape_that_nobody_expects_is_a_bad_answer(logprobs, server, open_generator):
    choice = {**ANSWER["choices"][0], "logprobs": logprobs}
    server.will(reply(200, {**ANSWER, "choices": [choice]}))
    with pytest.raises(errors.BadAnswer):
        open_generator().generate("hi", logprobs=1)
    assert len(server.posts) == 3


@pytest.mark.parametrize("charset", ["undefined", "punycode", "no-such", "hex"])
def test_an_odd_charset_ends_in_an_answer_or_a_memserve_error(charset, server, open_generator):
    server.will(reply(200, ANSWER, content_type=f"application/json; charset={charset}"))
    assert open_generator().generate("hi").text == "ok"


ROWS = {
    "codes": [{"code": "E42", "error": "ContextOverflow"}, {"code": "server_error", "error": "Throttled"}],
    "messages": [{"pattern": "purse is empty", "error": "QuotaExceeded"}],
    "overflows": [
        {"pattern": r"(?P<prompt>\d+) words and (?P<answer>\d+) more in a shelf of (?P<limit>\d+)"}
    ],
    "request_ids": ["x-shelf"],
}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (500, {"code": "E42", "message": "20 words and 5 more in a shelf of 16"}, errors.ContextOverflow),
        (400, {"message": "20 words and 5 more in a shelf of 16"}, errors.ContextOverflow),
        (400, {"message": "the purse is empty"}, errors.QuotaExceeded),
        (500, {"code": "server_error", "message": "slow"}, errors.Throttled),
        (400, {"code": "insufficient_quota", "message": "no"}, errors.QuotaExceeded),
        (503, {"message": "later"}, errors.Overloaded),
    ],
)
def test_a_backends_own_rows_go_before_the_shared_ones(status, body, kind, tmp_path):
    (tmp_path / "errors.json").write_text(json.dumps(ROWS))
    known = known_errors(str(tmp_path / "engine.py"))
    found = error_of(status, {"x-shelf": "id-1"}, json.dumps({"error": body}), mask=Mask(), known=known)
    assert type(found) is kind
    if kind is errors.ContextOverflow:
        assert (found.tokens, found.limit, found.prompt) == (25, 16, 20)
    else:
        assert found.request_id == "id-1"
