"""Failures as Google words them."""

from __future__ import annotations

import logging
import time

import pytest
from faulty_server import reply

from memserve import errors

OK = reply(200, {"candidates": [{"content": {"parts": [{"text": "ok"}]}, "finishReason": "STOP"}]})
QUOTA = "You exceeded your current quota, please check your plan and billing details."


def failing(status, code, message="said", *details, **headers):
    body = {"error": {"code": status, "message": message, "status": code, "details": list(details)}}
    return reply(status, body, **headers)


def violation(quota):
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]}


def delay(seconds):
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": seconds}


@pytest.mark.parametrize(
    ("status", "code", "error", "posts"),
    [
        (400, "INVALID_ARGUMENT", errors.BadRequest, 1),
        (400, "FAILED_PRECONDITION", errors.BadRequest, 1),
        (401, "UNAUTHENTICATED", errors.AuthenticationFailed, 1),
        (403, "PERMISSION_DENIED", errors.PermissionDenied, 1),
        (404, "NOT_FOUND", errors.NotFound, 1),
        (500, "INTERNAL", errors.ServerFailed, 3),
        (503, "UNAVAILABLE", errors.Overloaded, 3),
        (504, "DEADLINE_EXCEEDED", errors.TimedOut, 3),
        (200, "UNAVAILABLE", errors.Overloaded, 3),
    ],
)
def test_errors_are_typed(status, code, error, posts, server, opened):
    server.will(failing(status, code))
    with pytest.raises(error, match="said") as caught:
        opened(server.base_url).generate("hi")
    assert (len(server.posts), caught.value.status) == (posts, status)


def test_a_wrong_key_is_a_400_here(gemini, opened):
    with pytest.raises(errors.AuthenticationFailed, match="API key not valid"):
        opened(gemini.origin, api_key="wrong").generate("hi")
    assert len(gemini.seen) == 1


def test_a_minutes_quota_is_waited_out_as_the_body_says(server, opened, slept):
    minute = violation("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
    server.will(failing(429, "RESOURCE_EXHAUSTED", QUOTA, minute, delay("1.2s")), OK)
    assert opened(server.base_url).generate("hi").text == "ok"
    assert 1.2 <= sum(slept) <= 1.32


def test_a_pause_that_stands_in_the_text_alone(server, opened, slept):
    server.will(failing(429, "RESOURCE_EXHAUSTED", f"{QUOTA} Please retry in 1.1s."), OK)
    assert opened(server.base_url).generate("hi").text == "ok"
    assert 1.1 <= sum(slept) <= 1.21


@pytest.mark.parametrize("seconds", ["soon", "-5s", "nans", "infs", ""])
def test_a_pause_that_makes_no_sense_is_ours(seconds, server, opened):
    server.will(failing(429, "RESOURCE_EXHAUSTED", "busy", delay(seconds)), OK)
    assert opened(server.base_url).generate("hi").text == "ok"


@pytest.mark.parametrize(
    "details",
    [
        [violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), delay("30s")],
        [{"reason": "RATE_LIMIT_EXCEEDED", "metadata": {"quota_limit": "Gemini25ProRequestsPerDay"}}],
    ],
)
def test_a_days_quota_is_not_waited_for(details, server, opened):
    server.will(failing(429, "RESOURCE_EXHAUSTED", QUOTA, *details))
    with pytest.raises(errors.QuotaExceeded):
        opened(server.base_url).generate("hi")
    assert len(server.posts) == 1


def test_an_hour_is_too_long_and_says_until_when(server, opened):
    began = time.time()
    server.will(failing(429, "RESOURCE_EXHAUSTED", "busy", delay("3600s")))
    with pytest.raises(errors.Throttled) as caught:
        opened(server.base_url).generate("hi")
    assert began + 3600 <= caught.value.retry_at <= time.time() + 3600


def test_an_overflow_has_both_numbers(server, opened):
    text = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
    server.will(failing(400, "INVALID_ARGUMENT", text))
    with pytest.raises(errors.ContextOverflow) as caught:
        opened(server.base_url).generate("hi")
    assert (caught.value.tokens, caught.value.limit) == (1200000, 1048576)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b"[]",
        b'{"candidates": []}',
        b'{"candidates": 5}',
        b'{"candidates":[{"content":{"parts":5}}]}',
    ],
)
def test_answers_that_are_none_are_retried_and_raised(body, server, opened):
    server.will(reply(200, body), OK)
    assert opened(server.base_url).generate("hi").text == "ok"
    server.will(reply(200, body))
    with pytest.raises(errors.BadAnswer):
        opened(server.base_url).generate("hi")


def test_the_key_is_never_shown_nor_taken_elsewhere(server, opened, caplog):
    server.will(failing(400, "INVALID_ARGUMENT", "your key AIza-very-secret-key is odd"))
    generator = opened(server.base_url)
    with caplog.at_level(logging.DEBUG), pytest.raises(errors.BadRequest) as caught:
        generator.generate("hi")
    assert "very-secret" not in repr(caught.value) + caplog.text + repr(generator) + repr(generator.identity)
    server.will(reply(307, b"", location="http://127.0.0.1:9/"))
    with pytest.raises(errors.Redirected):
        generator.generate("hi")
