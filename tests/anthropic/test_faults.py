"""Failures as Anthropic words them."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone

import pytest
from faulty_server import reply

from memserve import errors

MESSAGE = {"type": "message", "content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn"}
OK = reply(200, MESSAGE)


def failing(status, kind, message="said", **headers):
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_9"}
    return reply(status, body, **headers)


@pytest.mark.parametrize(
    ("status", "kind", "error", "posts"),
    [
        (400, "invalid_request_error", errors.BadRequest, 1),
        (401, "authentication_error", errors.AuthenticationFailed, 1),
        (402, "billing_error", errors.QuotaExceeded, 1),
        (403, "permission_error", errors.PermissionDenied, 1),
        (404, "not_found_error", errors.NotFound, 1),
        (413, "request_too_large", errors.BadRequest, 1),
        (500, "api_error", errors.ServerFailed, 3),
        (504, "timeout_error", errors.ServerFailed, 3),
        (529, "overloaded_error", errors.Overloaded, 3),
    ],
)
def test_errors_are_typed(status, kind, error, posts, server, opened):
    server.will(failing(status, kind))
    with pytest.raises(error, match="said") as caught:
        opened(server.base_url).generate("hi")
    assert len(server.posts) == posts
    assert caught.value.status == status
    assert caught.value.request_id == "req_9"


def test_a_throttle_waits_as_asked(server, opened, slept):
    server.will(failing(429, "rate_limit_error", retry_after="1"), OK)
    assert opened(server.base_url).generate("hi").text == "ok"
    assert 1 <= sum(slept) <= 1.1


def test_a_throttle_waits_for_the_reset_that_is_spent(server, opened, slept):
    reset = (datetime.now(timezone.utc) + timedelta(seconds=6)).isoformat().replace("+00:00", "Z")
    headers = {"anthropic_ratelimit_tokens_reset": reset, "anthropic_ratelimit_tokens_remaining": "0"}
    server.will(failing(429, "rate_limit_error", **headers), OK)
    assert opened(server.base_url).generate("hi").text == "ok"
    assert 0 < sum(slept) <= 6.6


def test_no_money_is_not_waited_for(server, opened):
    server.will(failing(400, "invalid_request_error", "Your credit balance is too low to access the API"))
    with pytest.raises(errors.QuotaExceeded):
        opened(server.base_url).generate("hi")
    assert len(server.posts) == 1


def test_an_overflow_has_both_numbers(server, opened):
    server.will(failing(400, "invalid_request_error", "prompt is too long: 215000 tokens > 200000 maximum"))
    with pytest.raises(errors.ContextOverflow) as caught:
        opened(server.base_url).generate("hi")
    assert (caught.value.tokens, caught.value.limit) == (215000, 200000)


def test_a_413_of_another_server_on_the_way(server, opened):
    page = b"<html>413 Request Entity Too Large</html>"
    server.will(reply(413, page, content_type="text/html"))
    with pytest.raises(errors.BadRequest):
        opened(server.base_url).generate("hi")


@pytest.mark.parametrize("body", [b"", b"{", b'{"type":"message"}', b"[]", b'{"content": 5}'])
def test_answers_that_are_none_are_retried_and_raised(body, server, opened):
    server.will(reply(200, body), OK)
    assert opened(server.base_url).generate("hi").text == "ok"
    server.posts.clear()
    server.will(reply(200, body))
    with pytest.raises(errors.BadAnswer):
        opened(server.base_url).generate("hi")
    assert len(server.posts) == 3


def test_a_failure_inside_200(server, opened):
    server.will(failing(200, "overloaded_error"), OK)
    assert opened(server.base_url).generate("hi").text == "ok"


def test_the_key_is_never_shown_nor_taken_elsewhere(server, opened, caplog):
    server.will(failing(400, "invalid_request_error", "your key sk-ant-very-secret is odd"))
    generator = opened(server.base_url)
    with caplog.at_level(logging.DEBUG), pytest.raises(errors.BadRequest) as caught:
        generator.generate("hi")
    assert "very-secret" not in repr(caught.value) + caplog.text + repr(generator) + repr(generator.identity)
    server.will(reply(307, b"", location="http://127.0.0.1:9/"))
    with pytest.raises(errors.Redirected):
        generator.generate("hi")
