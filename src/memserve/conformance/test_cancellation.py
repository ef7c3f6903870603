"""Giving a request up leaves the engine usable; many waiting requests all come back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from memserve.conformance.asking import answer, question


def test_a_cancelled_request_leaves_the_engine_usable(generator: Any, can: Any) -> None:
    async def give_up() -> None:
        task = asyncio.create_task(generator.agenerate(question(1), max_tokens=48))
        await asyncio.sleep(0.05)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    before = answer(generator, question(2), 4)
    asyncio.run(give_up())
    after = answer(generator, question(2), 4)
    assert after.error is None
    assert after.text == before.text or not can.deterministic


def test_many_waiting_requests_all_come_back(generator: Any) -> None:
    async def crowd() -> list[Any]:
        jobs = (generator.agenerate(question(n % 7), max_tokens=1) for n in range(40))
        return list(await asyncio.gather(*jobs))

    assert all(one.error is None for one in asyncio.run(crowd()))


def test_the_engine_works_inside_a_running_loop(generator: Any) -> None:
    async def inside() -> Any:
        return generator.generate(question(1), max_tokens=2)

    assert asyncio.run(inside()).error is None


def test_loops_may_come_and_go(generator: Any) -> None:
    for _ in range(3):
        got = asyncio.run(generator.agenerate(question(1), max_tokens=2))
        assert got.error is None
