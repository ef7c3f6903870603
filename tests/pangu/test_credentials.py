"""Tokens, keys and signatures: fetched once, renewed once, never hammered, never shown."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from email.utils import formatdate

import pytest
from fake_pangu import V1
from faulty_server import reply

from memserve import errors

LOGIN = {"user": "ann", "password": "pass-word-9", "domain": "acme"}
REFUSED = {"error_code": "APIG.0301", "error_msg": "verify aksk signature fail", "request_id": "r"}
OK = reply()


def test_one_login_serves_all(pangu, opened):
    generator = opened(pangu.origin, iam_url=pangu.origin, **LOGIN)
    answers = generator.generate(["hi"] * 40, max_tokens=2)
    assert len(answers) == 40
    assert len(pangu.logins) == 1
    assert {seen.headers["x-auth-token"] for seen in pangu.asked} == set(pangu.tokens)
    assert "x-auth-token" not in pangu.logins[0].headers


def test_a_refused_token_is_renewed_once_for_all(pangu, opened):
    generator = opened(pangu.origin, iam_url=pangu.origin, **LOGIN)
    generator.generate("hi", max_tokens=2)
    pangu.valid.clear()
    assert all(a.error is None for a in generator.generate(["hi"] * 40, max_tokens=2))
    assert len(pangu.logins) == 2


def test_threads_and_loops_share_one_login(pangu, opened):
    generator = opened(pangu.origin, iam_url=pangu.origin, **LOGIN)

    def own_loop() -> None:
        asyncio.run(generator.agenerate(["hi"] * 5, max_tokens=2))

    threads = [threading.Thread(target=own_loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    generator.generate(["hi"] * 5, max_tokens=2)
    for thread in threads:
        thread.join(20)
    assert len(pangu.logins) == 1
    assert len(pangu.asked) == 25


def test_a_token_is_renewed_before_it_ends(pangu, opened):
    pangu.token_seconds = 2.0
    generator = opened(pangu.origin, iam_url=pangu.origin, **LOGIN)
    generator.generate("hi", max_tokens=2)
    time.sleep(2.0)
    generator.generate("hi", max_tokens=2)
    assert len(pangu.logins) == 2
    assert len(pangu.asked) == 2


def test_a_token_that_stays_refused_stops_the_run(pangu, opened):
    generator = opened(pangu.origin, iam_url=pangu.origin, **LOGIN)
    pangu.forgetful = True
    answers = generator.generate(["hi"] * 30, max_tokens=2, on_error="return")
    assert all(isinstance(answer.error, errors.AuthenticationFailed) for answer in answers)
    assert len(pangu.asked) == 2
    assert len(pangu.logins) == 2


def test_a_wrong_password_is_tried_once(pangu, opened):
    generator = opened(pangu.origin, iam_url=pangu.origin, **{**LOGIN, "password": "wrong-secret"})
    answers = generator.generate(["hi"] * 30, max_tokens=2, on_error="return")
    assert all(isinstance(answer.error, errors.AuthenticationFailed) for answer in answers)
    assert len(pangu.logins) == 1
    assert pangu.asked == []
    assert "wrong-secret" not in str(answers)


@pytest.mark.parametrize("how", ["generate", "stream", "agenerate"])
def test_a_wrong_signature_is_sent_once(how, server, opened):
    server.will(reply(401, REFUSED))
    generator = opened(server.base_url, ak="AKEXAMPLE", sk="sk-very-secret")
    for _ in range(8):
        with pytest.raises(errors.AuthenticationFailed):
            if how == "generate":
                generator.generate(["hi"] * 20)
            elif how == "stream":
                list(generator.stream("hi"))
            else:
                asyncio.run(generator.agenerate(["hi"] * 20))
    assert len(server.posts) == 1


def test_a_locked_key_says_until_when(server, opened):
    began = time.time()
    server.will(reply(401, {**REFUSED, "error_msg": "AK access failed to reach the limit,forbidden"}))
    with pytest.raises(errors.AuthenticationFailed, match="AK access failed") as caught:
        opened(server.base_url, ak="AKEXAMPLE", sk="sk-very-secret").generate("hi")
    assert began + 300 <= caught.value.retry_at <= time.time() + 300


def test_a_skewed_clock_is_corrected_by_the_servers_date(server, opened, caplog):
    ahead = time.time() + 7200
    server.will(reply(401, REFUSED, date=formatdate(ahead, usegmt=True)), OK)
    generator = opened(server.base_url, ak="AKEXAMPLE", sk="sk-very-secret")
    with caplog.at_level(logging.WARNING, "memserve"):
        assert generator.generate("hi").text == "ok"
    first, second = (post.headers["x-sdk-date"] for post in server.posts)
    assert second > first
    assert "clock differs" in caplog.text
    assert len(server.posts) == 2


def test_a_request_that_fails_otherwise_opens_the_gate(server, opened):
    server.will(reply(400, {"error_code": "PANGU.0010", "error_msg": "parameter illegal."}), OK)
    generator = opened(server.base_url, api_key="k" * 9, concurrency=4)
    answers = generator.generate(["hi"] * 10, on_error="return")
    assert sum(answer.error is None for answer in answers) == 9


def test_signed_headers_are_sent(server, opened):
    server.will(OK)
    generator = opened(server.base_url, ak="AKEXAMPLE", sk="sk-very-secret", security_token="sts-token-1")
    generator.generate("hi")
    headers = server.posts[0].headers
    assert server.posts[0].path == f"{V1}/chat/completions"
    names = "content-type;host;x-project-id;x-sdk-date;x-security-token"
    assert f"Access=AKEXAMPLE, SignedHeaders={names}, Signature=" in headers["authorization"]
    assert headers["host"] == server.base_url.split("/")[2]
    assert headers["x-project-id"] == "PID"
    assert headers["x-security-token"] == "sts-token-1"


def test_too_large_a_body_is_refused_before_signing(server, opened):
    with pytest.raises(errors.InvalidInput, match="12 MB"):
        opened(server.base_url, ak="AKEXAMPLE", sk="sk-very-secret").generate("x" * 13_000_000)
    assert server.posts == []


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"PANGU_API_KEY": "key-123456"}, "x-apig-appcode"),
        ({"PANGU_APP_CODE": "key-123456"}, "x-apig-appcode"),
        ({"PANGU_AUTH_TOKEN": "key-123456"}, "x-auth-token"),
        ({"HUAWEICLOUD_SDK_AK": "AK", "HUAWEICLOUD_SDK_SK": "key-123456"}, "x-sdk-date"),
    ],
)
def test_credentials_of_the_environment(variables, header, server, opened, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    server.will(OK)
    opened(server.base_url).generate("hi")
    assert header in server.posts[0].headers


SECRETS = {
    "api_key": {"api_key": "secret-one-111"},
    "pair": {"ak": "AKEXAMPLE", "sk": "secret-one-111", "security_token": "secret-two-222"},
    "token": {"token": "secret-one-111"},
    "login": {**LOGIN, "password": "secret-one-111"},
}


@pytest.mark.parametrize("kind", sorted(SECRETS))
def test_no_secret_is_shown_even_when_echoed(kind, server, opened, caplog):
    echo = {"error_code": "PANGU.0010", "error_msg": "you sent secret-one-111 and secret-two-222"}
    server.will(reply(400, echo))
    options = {**SECRETS[kind], **({"iam_url": server.base_url} if kind == "login" else {})}
    generator = opened(server.base_url, **options)
    with caplog.at_level(logging.DEBUG), pytest.raises(errors.MemserveError) as caught:
        generator.generate("hi")
    seen = repr(caught.value) + str(caught.value) + str(caught.value.args) + caplog.text + repr(generator)
    seen += repr(generator.identity) + repr(vars(generator)) + repr(generator.capabilities)
    assert "secret-one-111" not in seen
    if kind == "pair":
        assert "secret-two-222" not in seen


def test_a_redirect_takes_no_token_along(server, opened):
    server.will(reply(307, b"", location="http://127.0.0.1:9/elsewhere"))
    with pytest.raises(errors.Redirected):
        opened(server.base_url, token="MIIN-token").generate("hi")
    assert len(server.posts) == 1


def test_requests_that_cannot_be_written_prove_nothing(server, opened):
    server.will(reply(401, REFUSED))
    generator = opened(server.base_url, ak="AKEXAMPLE", sk="sk-very-secret", concurrency=2000)
    answers = generator.generate(["hi"] * 1500, pangu_user=object(), on_error="return")
    assert all(isinstance(answer.error, errors.InvalidInput) for answer in answers)
    assert server.posts == []
    generator.generate(["hi"] * 50, on_error="return")
    assert len(server.posts) == 1
