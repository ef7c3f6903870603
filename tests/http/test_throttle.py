"""Pauses that a provider asks for: as long as it says, for everybody, and never for hours."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

import pytest
from faulty_server import reply

from memserve import errors
from memserve.http import retry
from memserve.http.transport import Limits, Refused
from memserve.protocol import observer

OK = reply()
SLOW = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}


@pytest.mark.parametrize(
    ("headers", "least"),
    [
        ({"retry_after": "1"}, 1.0),
        ({"retry_after": "0.4"}, 0.4),
        ({"retry_after_ms": "300"}, 0.3),
        ({"x_ratelimit_reset_tokens": "500ms", "x_ratelimit_reset_requests": "1ms"}, 0.5),
    ],
)
def test_the_pause_is_as_long_as_asked(headers, least, server, open_generator, slept):
    server.will(reply(429, SLOW, **headers), OK)
    assert open_generator().generate("hi").text == "ok"
    assert least <= sum(slept) <= least * 1.1


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_a_day_is_not_slept_away(kind, server, open_generator):
    began = time.time()
    value = "86400" if kind == "seconds" else formatdate(began + 86400, usegmt=True)
    server.will(reply(429, SLOW, retry_after=value), OK)
    with pytest.raises(errors.Throttled) as caught:
        open_generator().generate("hi")
    assert began + 86399 <= caught.value.retry_at <= time.time() + 86400
    assert len(server.posts) == 1


def test_a_reset_of_minutes_is_a_hint_that_a_retry_may_beat(server, open_generator, slept):
    server.will(reply(429, SLOW, x_ratelimit_reset_tokens="6m0s"), OK)
    assert open_generator().generate("hi").text == "ok"
    assert sum(slept) < 3


def test_a_reset_of_minutes_says_until_when_at_last(server, open_generator):
    began = time.time()
    server.will(reply(429, SLOW, x_ratelimit_reset_tokens="6m0s"))
    with pytest.raises(errors.Throttled) as caught:
        open_generator().generate("hi")
    assert began + 360 <= caught.value.retry_at <= time.time() + 360
    assert caught.value.retryable
    assert len(server.posts) == 3


def test_the_largest_reset_within_the_cap_is_waited_for(server, open_generator, slept):
    slow = reply(429, SLOW, x_ratelimit_reset_tokens="6m0s", x_ratelimit_reset_requests="1.2s")
    server.will(slow, OK)
    assert open_generator().generate("hi").text == "ok"
    assert 1.2 <= sum(slept) <= 1.2 * 1.1


def test_one_throttle_pauses_everybody(server, open_generator):
    generator = open_generator()
    server.will(reply(429, SLOW, retry_after="0.6"), OK)
    heard = []

    class Hears:
        async def before(self, limit):
            heard.append(limit)

        def failed(self, error):
            heard.append(type(error))

    async def observed():
        observer.set(Hears())
        await generator.agenerate("a")

    async def main():
        first = asyncio.create_task(observed())
        await asyncio.sleep(0.2)
        start = time.monotonic()
        await asyncio.gather(*(generator.agenerate("b") for _ in range(5)))
        waited = time.monotonic() - start
        await first
        return waited

    assert asyncio.run(main()) > 0.25
    assert len(server.posts) == 7
    assert heard == [30, errors.Throttled, 30], "each attempt, and its time limit"


def test_the_posts_are_counted(server, open_generator):
    server.will(reply(429, SLOW, retry_after="0"))
    with pytest.raises(errors.Throttled, match="after 3 attempts"):
        open_generator().generate("hi")
    assert len(server.posts) == 3


def test_no_retries_means_one_post(server, open_generator):
    server.will(reply(503, {"error": {"message": "busy"}}))
    with pytest.raises(errors.Overloaded):
        open_generator(max_retries=0).generate("hi")
    assert len(server.posts) == 1


def test_a_request_above_the_whole_limit_is_not_repeated(server, open_generator):
    words = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 50000."
    server.will(reply(429, {"error": {"message": words, "code": "rate_limit_exceeded"}}))
    with pytest.raises(errors.BadRequest):
        open_generator().generate("hi")
    assert len(server.posts) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "\u0663"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT", "date": "Thu, 01 Jan 1970 00:00:00 GMT"}, 60.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"x-ratelimit-reset-tokens": "6m0s"}, None),
        ({}, None),
    ],
)
def test_how_long_a_server_asks_to_wait(headers, seconds):
    assert retry.asked(headers, 1000.0) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, [1.0, 360.0]),
        (
            {
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-tokens": "900",
                "x-ratelimit-reset-requests": "2s",
                "x-ratelimit-remaining-requests": "0",
            },
            [2.0],
        ),
        ({"anthropic-ratelimit-tokens-reset": "1970-01-01T00:16:50Z"}, [10.0]),
        ({"x-ratelimit-reset-tokens": "later"}, []),
        ({}, []),
    ],
)
def test_when_limits_are_whole_again(headers, seconds):
    assert retry.resets(headers, 1000.0) == seconds


def test_a_server_that_never_answered_is_waited_for_once_not_by_each_request(monkeypatch):
    now = iter(range(0, 10_000, 1))
    monkeypatch.setattr(retry.time, "monotonic", lambda: float(next(now)))
    refused, seen, limits = Refused("nobody listens"), retry.Seen(), Limits()
    waited = []
    for _ in range(50):
        attempts, steps = retry.Attempts(limits, seen), 0
        with pytest.raises(Refused):
            while True:
                attempts.after(refused)
                steps += 1
        waited.append(steps)
    assert (
        waited[0] >= 7 and waited[1:9] == [0] * 8
    )  # a second each; after as long again it is hoped for anew
    assert sum(waited) < 50 * 5
