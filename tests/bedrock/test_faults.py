"""Failures as AWS words them."""

from __future__ import annotations

import pytest
from faulty_server import reply

from memserve import errors

OK = reply(200, {"output": {"message": {"content": [{"text": "ok"}]}}, "stopReason": "end_turn"})


def failing(status, kind, message="said", **headers):
    return reply(status, {"message": message}, x_amzn_errortype=f"{kind}:http://internal/", **headers)


CASES = [
    (400, "ValidationException", errors.BadRequest, 1),
    (400, "ServiceQuotaExceededException", errors.QuotaExceeded, 1),
    (403, "AccessDeniedException", errors.PermissionDenied, 1),
    (403, "UnrecognizedClientException", errors.AuthenticationFailed, 1),
    (404, "ResourceNotFoundException", errors.NotFound, 1),
    (408, "ModelTimeoutException", errors.TimedOut, 3),
    (424, "ModelErrorException", errors.ServerFailed, 3),
    (429, "ModelNotReadyException", errors.Overloaded, 3),
    (500, "InternalServerException", errors.ServerFailed, 3),
    (503, "ServiceUnavailableException", errors.Overloaded, 3),
]


@pytest.mark.parametrize(("status", "kind", "error", "posts"), CASES)
def test_errors_are_typed_by_their_header(status, kind, error, posts, server, opened):
    server.will(failing(status, kind))
    with pytest.raises(error, match="said") as caught:
        opened(server.base_url).generate("hi")
    assert (len(server.posts), caught.value.status, caught.value.code) == (posts, status, kind)


@pytest.mark.parametrize(("status", "kind", "error", "posts"), CASES)
def test_errors_are_typed_by_their_body(status, kind, error, posts, server, opened):
    server.will(reply(status, {"__type": f"com.amazon.coral.service#{kind}", "message": "said"}))
    with pytest.raises(error):
        opened(server.base_url).generate("hi")
    assert len(server.posts) == posts


def test_a_throttle_is_waited_out(server, opened, slept):
    server.will(failing(429, "ThrottlingException", x_amz_retry_after="1100"), OK)
    assert opened(server.base_url).generate("hi").text == "ok"
    assert 1.1 <= sum(slept) <= 1.21


def test_a_days_tokens_are_not_waited_for(server, opened):
    text = "Too many tokens per day, please wait before trying again."
    server.will(failing(429, "ThrottlingException", text))
    with pytest.raises(errors.QuotaExceeded):
        opened(server.base_url).generate("hi")
    assert len(server.posts) == 1


def test_too_many_tokens_a_minute_are_a_throttle(server, opened):
    server.will(failing(429, "ThrottlingException", "Too many tokens, please wait before trying again."), OK)
    assert opened(server.base_url).generate("hi").text == "ok"


def test_an_overflow_is_told(bedrock, opened):
    with pytest.raises(errors.ContextOverflow, match="too long"):
        opened(bedrock.origin).generate("word " * 5000)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"output": {}}', b'{"output":{"message":{"content":5}}}']
)
def test_answers_that_are_none_are_retried_and_raised(body, server, opened):
    server.will(reply(200, body), OK)
    assert opened(server.base_url).generate("hi").text == "ok"
    server.will(reply(200, body))
    with pytest.raises(errors.BadAnswer):
        opened(server.base_url).generate("hi")
