"""Giving a request up leaves the engine usable; many waiting requests all come back."""

import asyncio
import contextlib
import time
from typing import Any

import pytest

from memserve.conformance.asking import answer, awaited, question, said, streamed


def test_a_cancelled_request_leaves_the_engine_usable(generator: Any, can: Any) -> None:
    async def give_up(after: float) -> bool:
        task = asyncio.create_task(awaited(generator, question(1), 48))
        await asyncio.sleep(after)
        late = task.done() or not task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return late or task.cancelled()

    before = answer(generator, question(2), 4)
    for seconds in (0, 0.001, 0.004, 0.02, 0.08):
        assert asyncio.run(give_up(seconds)), "a cancelled request was answered all the same"
        after = answer(generator, question(2), 4)
        assert after.error is None
        assert said(after) == said(before) or not can.deterministic


def test_awaiting_leaves_the_loop_free(generator: Any, can: Any) -> None:
    async def watch() -> bool:
        task, begin, longest = (
            asyncio.create_task(awaited(generator, question(1), 160)), time.monotonic(), 0.0,
        )  # fmt: skip
        while not task.done():
            last = time.monotonic()
            await asyncio.sleep(0.002)
            longest = max(longest, time.monotonic() - last)
        took = time.monotonic() - begin
        return took < 0.04 or longest < 0.7 * took

    if can.context and can.context < 400:
        pytest.skip("capability context: too small for an answer that takes its time")
    assert any(asyncio.run(watch()) for _ in range(3)), "the event loop stood still while an answer was made"


def test_many_waiting_requests_all_come_back(generator: Any, can: Any) -> None:
    async def crowd() -> list[Any]:
        jobs = (awaited(generator, question(n % 7), 2) for n in range(40))
        return list(await asyncio.gather(*jobs))

    got = asyncio.run(crowd())
    assert all(one.error is None for one in got)
    for place, one in enumerate(got):
        assert one.usage.prompt_tokens == got[place % 7].usage.prompt_tokens
        assert one.text == got[place % 7].text or not can.deterministic


def test_the_engine_works_inside_a_running_loop(generator: Any, can: Any) -> None:
    async def inside() -> Any:
        if can.stream:
            assert streamed(generator, question(1), 2)
        return answer(generator, question(1), 2)

    assert asyncio.run(inside()).error is None


def test_loops_may_come_and_go(generator: Any) -> None:
    for _ in range(3):
        got = asyncio.run(awaited(generator, question(1), 2))
        assert got.error is None
