"""Keys stay secret, redirects are refused, certificates verified, bodies bounded."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import logging
import pickle
import ssl
import traceback
import zlib

import pytest
from extras import need
from faulty_server import SSE_HEAD, Act, FaultyServer, Wire, raw, reply
from hypothesis import given
from hypothesis import strategies as st

import memserve
from memserve import errors
from memserve.http import Mask, Secret, address
from memserve.http.secret import MaskedStream

KEY = "sk-very-secret-key"
OK = reply()


def echoing(status: int, form=lambda key: key) -> Act:
    words = f"Incorrect API key provided: {form(KEY)}. " + "x" * 470 + form(KEY)
    return reply(
        status,
        {"error": {"message": words, "code": form(KEY), "type": "invalid_request_error"}},
        x_request_id=form(KEY),
    )


def everything(error: BaseException) -> str:
    """All that a person or a program may read of an error."""
    words = ["".join(traceback.format_exception(error)), repr(error), str(error)]
    while error is not None:
        words += [repr(vars(error)), repr(error.args)]
        error = error.__cause__ or error.__context__
    return " ".join(words)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize(
    "form", [str, str.upper, lambda k: base64.b64encode(k.encode()).decode(), json.dumps]
)
def test_an_echoed_key_is_masked(status, form, server, open_generator, caplog):
    caplog.set_level(logging.DEBUG, logger="memserve")
    server.will(echoing(status, form))
    with pytest.raises(errors.MemserveError) as caught:
        open_generator(max_retries=1).generate("hi")
    seen = (everything(caught.value) + caplog.text).lower()
    assert KEY not in seen
    assert base64.b64encode(KEY.encode()).decode().lower() not in seen
    if status == 401:
        assert len(server.posts) == 1


def test_a_key_in_plain_text_and_in_a_stream(server, open_generator):
    for act in (
        reply(500, f"<html>{KEY}</html>".encode(), content_type="text/html"),
        raw(SSE_HEAD + b'data: {"error": {"message": "' + KEY.encode() + b'"}}\n\n'),
    ):
        server.will(act)
        with pytest.raises(errors.MemserveError) as caught:
            list(open_generator(max_retries=0).stream("hi"))
        assert KEY not in everything(caught.value)


@given(st.lists(st.sampled_from(["a", KEY[:5], KEY[5:], KEY, KEY.upper(), "\n", "é"]), max_size=12))
def test_a_key_is_masked_wherever_a_stream_is_cut(pieces):
    mask = Mask([KEY])
    stream = MaskedStream(mask)
    said = [stream.push(piece) for piece in pieces] + [stream.push("", last=True)]
    assert "".join(said) == mask("".join(pieces))


def test_a_streamed_answer_and_its_calls_show_no_key(server, open_generator):
    call = {"index": 0, "id": f"c{KEY}", "function": {"name": "f", "arguments": json.dumps({"a": KEY})}}
    deltas = [{"content": f"so {KEY[:7]}"}, {"content": f"{KEY[7:]}!"}, {"tool_calls": [call]}]
    rows = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    rows.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    events = "".join(f"data: {json.dumps(row)}\n\n" for row in rows)
    server.will(raw(SSE_HEAD + events.encode() + b"data: [DONE]\n\n"))
    said = list(open_generator(max_retries=0).stream("hi"))
    assert "".join(delta.text for delta in said) == "so ***!"
    assert [(one.id, one.arguments) for delta in said for one in delta.tool_calls] == [
        ("c***", '{"a": "***"}')
    ]


@pytest.mark.parametrize("key", ["EMPTY", "ollama", "none", "lm-studio", "not-needed", "x", "12345"])
def test_an_answer_that_holds_a_placeholder_stays_as_it_was_said(server, open_generator, key):
    """Servers of one's own take any key: what people write there stands in answers, too."""
    text, generator = f"The list is {key.lower()}, {key}.", open_generator(max_retries=0, api_key=key)
    message = {"role": "assistant", "content": text}
    server.will(
        reply(200, {"model": key, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    )
    answer = generator.generate("hi")
    assert (answer.text, answer.model) == (text, key)
    row = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
    server.will(raw(SSE_HEAD + f"data: {json.dumps(row)}\n\ndata: [DONE]\n\n".encode()))
    assert "".join(delta.text for delta in generator.stream("hi")) == text
    server.will(reply(400, text.encode()))
    with pytest.raises(errors.BadRequest) as caught:
        generator.generate("hi")
    assert key not in str(caught.value)


def _attributes(thing, seen, depth=0):
    if id(thing) in seen or depth > 8:
        return
    seen[id(thing)] = thing
    names = [name for name in dir(thing) if not name.startswith("_")]
    for name in names:
        try:
            value = getattr(thing, name)
        except Exception:
            continue
        yield name, value
        if not callable(value) and not isinstance(value, (str, int, float, bytes)):
            yield from _attributes(value, seen, depth + 1)


def test_no_public_attribute_holds_the_key(server, open_generator):
    server.will(OK)
    generator = open_generator()
    generator.generate("hi")
    for name, value in _attributes(generator, {}):
        assert KEY not in f"{value!r}", name
    assert KEY not in repr(generator)
    assert KEY not in json.dumps(generator.identity)


def test_a_secret_is_not_written_down():
    secret = Secret(KEY)
    assert KEY not in repr(secret)
    assert KEY not in str(secret)
    for write in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            write(secret)


def test_a_short_key_is_masked_as_a_word():
    assert Mask(["abc"])("key abc, not abcd") == "key ***, not abcd"


@pytest.mark.parametrize("location", ["http://evil.test/v1/chat/completions", "/elsewhere", ""])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_refused(status, location, server, open_generator):
    with FaultyServer() as other:
        other.will(OK)
        server.will(reply(status, b"", location=location.replace("evil.test", f"127.0.0.1:{other.port}")), OK)
        with pytest.raises(errors.Redirected) as caught:
            open_generator().generate("hi")
        assert caught.value.status == status
        assert other.posts == []
        assert len(server.posts) == 1


BOMB = b"[" + b" " * 80_000_000 + b"]"


@pytest.mark.parametrize(
    "act",
    [
        reply(200, gzip.compress(BOMB), content_encoding="gzip"),
        reply(200, zlib.compress(BOMB), content_encoding="deflate"),
        reply(200, gzip.compress(gzip.compress(BOMB)), content_encoding="gzip, gzip"),
        reply(200, b"\x00", content_encoding="br"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{", hang=True),
    ],
)
def test_bodies_have_a_limit(act, server, open_generator):
    server.will(act)
    with pytest.raises(errors.BadAnswer):
        open_generator().generate("hi")
    assert len(server.posts) == 1


def test_a_body_without_a_length_has_the_limit_too(server, open_generator):
    async def pour(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\n[")
        for _ in range(100):
            await wire.send(b" " * 2**20)

    server.will(pour)
    with pytest.raises(errors.BadAnswer, match="64 MiB"):
        open_generator(timeout=20).generate("hi")
    assert len(server.posts) == 1


def test_a_stream_has_the_limit_too(server, open_generator):
    async def pour(wire: Wire) -> None:
        await wire.send(SSE_HEAD)
        for _ in range(100):
            await wire.send(b": " + b"c" * 2**20 + b"\n")

    server.will(pour)
    with pytest.raises(errors.BadAnswer, match="64 MiB"):
        list(open_generator(timeout=20).stream("hi"))


@pytest.fixture
def authority():
    return need("trustme", "dev").CA()


@pytest.fixture
def tls_server(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FaultyServer(tls=context).will(OK) as running:
        yield running


def _generate(server, **options):
    with memserve.generator(
        "name", backend="openai", base_url=server.base_url, api_key=KEY, timeout=5, max_retries=1, **options
    ) as generator:
        return generator.generate("hi").text


def test_an_untrusted_certificate_is_refused(tls_server):
    with pytest.raises(errors.ConnectionFailed, match="certificate") as caught:
        _generate(tls_server)
    assert not caught.value.retryable
    assert KEY not in everything(caught.value)
    assert tls_server.posts == []


def test_ssl_cert_file_is_honoured(tls_server, authority, tmp_path, monkeypatch):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert _generate(tls_server) == "ok"


def test_a_ca_file_can_be_named(tls_server, authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    assert _generate(tls_server, ca_file=str(tmp_path / "ca.pem")) == "ok"
    with pytest.raises(errors.InvalidInput, match="certificate files"):
        _generate(tls_server, ca_file=str(tmp_path / "none.pem"))


def test_a_certificate_for_another_host_is_refused(authority, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.test").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with FaultyServer(tls=context).will(OK) as server, pytest.raises(errors.ConnectionFailed) as caught:
        _generate(server, ca_file=str(tmp_path / "ca.pem"))
    assert not caught.value.retryable


def test_a_tls_connection_that_is_cut(tls_server, authority, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls_server.will(raw(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{", reset=True), OK)
    assert _generate(tls_server, ca_file=str(tmp_path / "ca.pem")) == "ok"


def test_netrc_is_not_read(server, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login someone password from-netrc\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server.will(OK)
    with memserve.generator("m", backend="openai", base_url=server.base_url) as generator:
        generator.generate("hi")
    assert "authorization" not in server.posts[0].headers


def test_loopback_never_goes_through_a_proxy(server, open_generator, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server.will(OK)
    assert open_generator().generate("hi").text == "ok"


def test_another_host_goes_through_the_proxy(server, monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    server.will(OK)
    with memserve.generator("m", backend="openai", base_url="http://provider.test/v1") as generator:
        assert generator.generate("hi").text == "ok"
    assert server.posts[0].path == "http://provider.test/v1/chat/completions"


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "api.localhost",
        "localhost.",
        "::ffff:127.0.0.1",
        "0.0.0.0",
    ],
)
def test_what_is_loopback(host):
    assert address.is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "localhost.evil.test", "128.0.0.1", "provider.test"])
def test_what_is_not_loopback(host):
    assert not address.is_loopback(host)


def test_credentials_in_the_url_are_a_header_and_a_secret(server):
    url = server.base_url.replace("//", "//user:pass-word-1@") + "?api-key=query-secret-1&v=2"
    server.will(reply(400, {"error": {"message": "pass-word-1 and query-secret-1 are wrong"}}))
    with memserve.generator("m", backend="openai", base_url=url) as generator:
        with pytest.raises(errors.BadRequest) as caught:
            generator.generate("hi")
        shown = repr(generator) + json.dumps(generator.identity)
    assert "pass-word-1" not in everything(caught.value) + shown
    assert "query-secret-1" not in everything(caught.value) + shown
    assert server.posts[0].path == "/v1/chat/completions?api-key=query-secret-1&v=2"
    assert server.posts[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "http://host:port", "", 3])
def test_a_malformed_address_is_refused_at_once(url):
    with pytest.raises(errors.InvalidInput):
        memserve.generator("m", backend="openai", base_url=url or "x")
