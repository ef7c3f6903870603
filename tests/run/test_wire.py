"""The runner with a real client and a real server between them: one retry layer, one pause for all."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

import memserve
from memserve.errors import RunError, Throttled
from memserve.run import run
from memserve.run.async_loop import LoopEvent, Repeats


@pytest.fixture
def generator():
    opened = []

    def of(server, **options):
        chosen = {"api_key": "sk-test", "timeout": 30, "max_retries": 2, **options}
        opened.append(memserve.generator("m", backend="openai", base_url=server.url, **chosen))
        return opened[-1]

    yield of
    for one in opened:
        one.close()


def test_a_throttling_server_answers_everything_once(serve, generator, out):
    server = serve(seconds=0.01)
    server.a_second = 40
    summary = run([f"p{n}" for n in range(160)], out, generator=generator(server), concurrency=32)
    assert (summary.done, summary.failed) == (160, 0)
    assert set(Counter(server.answered).values()) == {1}
    assert server.refused < 160


def test_a_server_that_always_throttles_is_left_alone(serve, generator, out):
    server = serve()
    server.a_second = 0
    with pytest.raises(Throttled):
        run(["a", "b"], out, generator=generator(server, max_retries=1), patience=3)
    assert len(server.posts) < 20


def test_failures_are_posted_as_often_as_the_client_says_and_no_more(serve, generator, out):
    server = serve()
    server.status = 500
    summary = run(["a", "b", "c"], out, generator=generator(server, max_retries=1))
    assert summary.failed == 3
    assert Counter(server.posts) == {"a": 2, "b": 2, "c": 2}


def test_a_server_that_goes_and_comes_back(serve, generator, out):
    server = serve(seconds=0.002)
    asked = [f"p{n}" for n in range(400)]

    def requests():
        for n, prompt in enumerate(asked):
            if n == 150:
                server.status = 503
                began = time.monotonic()
            if n >= 150 and time.monotonic() - began > 2:
                server.status = 200
            time.sleep(0.005)
            yield prompt
        server.status = 200

    summary = run(requests(), out, generator=generator(server, max_retries=0), concurrency=8)
    assert (summary.done, summary.failed) == (400, 0)


def test_nobody_listens(serve, generator, out):
    server = serve()
    server.shutdown()
    server.server_close()
    with pytest.raises(RunError, match="every request fails"):
        run([f"p{n}" for n in range(5000)], out, generator=generator(server, max_retries=0))


def test_nobody_waits_for_a_turn_after_the_end():
    async def late() -> bool:
        (event := LoopEvent()).bind()
        repeats = Repeats(None, event)  # type: ignore[arg-type]
        repeats.stop()
        waiting = asyncio.ensure_future(repeats.wait(object()))  # type: ignore[arg-type]
        done, _ = await asyncio.wait([waiting], timeout=60)
        return waiting in done and waiting.cancelled()

    assert asyncio.run(late())
