"""Where keys come from, how they sign, and that nobody sees them."""

from __future__ import annotations

import logging
import time
from email.utils import formatdate

import pytest
from fake_bedrock import ACCESS, SECRET
from faulty_server import reply

from memserve import errors

MESSAGE = {"output": {"message": {"content": [{"text": "ok"}]}}, "stopReason": "end_turn"}
OK = reply(200, MESSAGE)


def refused(kind, **headers):
    return reply(403, {"message": "Signature expired: ..."}, x_amzn_errortype=kind, **headers)


def test_keys_sign_every_call(server, opened):
    server.will(OK)
    opened(server.base_url, aws_session_token="session-token-1").generate("hi")
    headers = server.posts[0].headers
    assert f"Credential={ACCESS}/" in headers["authorization"]
    assert "/us-east-1/bedrock/aws4_request" in headers["authorization"]
    assert "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token" in headers["authorization"]
    assert headers["x-amz-security-token"] == "session-token-1"


def test_keys_of_the_environment(server, opened, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s" * 12)
    server.will(OK)
    opened(server.base_url, bare=True, region="eu-west-1").generate("hi")
    assert "Credential=AKENV/" in server.posts[0].headers["authorization"]
    assert "/eu-west-1/bedrock/" in server.posts[0].headers["authorization"]


def test_keys_and_region_of_a_profile(server, opened, tmp_path):
    (tmp_path / "credentials").write_text(
        "[work]\naws_access_key_id = AKFILE\naws_secret_access_key = abc%def/123\naws_session_token = t-1\n"
    )
    (tmp_path / "config").write_text("[profile work]\nregion = ap-south-1\n")
    server.will(OK)
    opened(server.base_url, profile="work").generate("hi")
    assert "Credential=AKFILE/" in server.posts[0].headers["authorization"]
    assert "/ap-south-1/" in server.posts[0].headers["authorization"]


def test_expired_keys_are_read_anew_once(server, opened, tmp_path):
    def write(name):
        (tmp_path / "credentials").write_text(
            f"[default]\naws_access_key_id = {name}\naws_secret_access_key = secret-{name}\n"
        )

    async def expire(wire):
        write("AKNEW")
        await refused("ExpiredTokenException")(wire)

    write("AKOLD")
    server.will(expire, OK)
    assert opened(server.base_url, bare=True, region="us-east-1").generate("hi").text == "ok"
    assert [post.headers["authorization"].split("=")[1].split("/")[0] for post in server.posts] == [
        "AKOLD", "AKNEW",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["UnrecognizedClientException", "ExpiredTokenException", "InvalidSignatureException"]
)
def test_refused_keys_are_not_tried_again(kind, server, opened):
    server.will(refused(kind))
    with pytest.raises(errors.AuthenticationFailed):
        opened(server.base_url).generate("hi")
    assert len(server.posts) == 1


def test_a_skewed_clock_is_corrected_by_the_servers_date(server, opened, caplog):
    date = formatdate(time.time() - 7200, usegmt=True)
    server.will(refused("InvalidSignatureException", date=date), OK)
    with caplog.at_level(logging.WARNING, "memserve"):
        assert opened(server.base_url).generate("hi").text == "ok"
    first, second = (post.headers["x-amz-date"] for post in server.posts)
    assert second < first
    assert "clock differs" in caplog.text


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"aws_access_key_id": "AK", "region": "r"}, "belong together"),
        ({"aws_secret_access_key": "sk", "region": "r"}, "belong together"),
        ({"colour": "red", "region": "r"}, "colour"),
    ],
)
def test_options_that_make_no_sense(options, match, opened):
    with pytest.raises(errors.InvalidInput, match=match):
        opened("http://127.0.0.1:9", bare=True, **options)


def test_no_credentials_are_said_so(opened):
    with pytest.raises((errors.InvalidInput, errors.AuthenticationFailed), match="credentials"):
        opened("http://127.0.0.1:9", bare=True, region="us-east-1", max_retries=0).generate("hi")


def test_no_secret_is_shown_even_when_echoed(server, opened, caplog):
    server.will(reply(400, {"message": f"you sent {SECRET} and session-token-1"}))
    generator = opened(server.base_url, aws_session_token="session-token-1")
    with caplog.at_level(logging.DEBUG), pytest.raises(errors.BadRequest) as caught:
        generator.generate("hi")
    seen = repr(caught.value) + str(caught.value) + caplog.text + repr(generator) + repr(generator.identity)
    assert SECRET not in seen
    assert "session-token-1" not in seen


def test_a_redirect_takes_no_token_along(server, opened):
    server.will(reply(307, b"", location="http://127.0.0.1:9/"))
    with pytest.raises(errors.Redirected):
        opened(server.base_url).generate("hi")
    assert len(server.posts) == 1
