"""Isolation: requests that run at the same time do not mix their settings or their fates."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from memserve.conformance.asking import (
    answer,
    awaited,
    heat,
    long_answer,
    need,
    piece,
    question,
    said,
    streamed,
)
from memserve.errors import MemserveError


async def _at_once(generator: Any, jobs: list[tuple[Any, dict[str, Any]]]) -> list[Any]:
    return list(await asyncio.gather(*(awaited(generator, p, **s) for p, s in jobs)))


def test_each_request_keeps_its_max_tokens(generator: Any, can: Any) -> None:
    need(can, "max_tokens")
    limits = [1, 9, 3, 6]
    jobs = [(question(n, 3 + n), {"max_tokens": limit}) for n, limit in enumerate(limits)]
    got = asyncio.run(_at_once(generator, jobs))
    alone = [answer(generator, p, **s).usage.completion_tokens for p, s in jobs]
    for one, limit, count in zip(got, limits, alone, strict=True):
        used = one.usage.completion_tokens
        assert used is None or used <= limit
        if generator.capabilities.deterministic:
            assert used == count


def test_each_request_keeps_its_stop(generator: Any, can: Any) -> None:
    need(can, "stop", "deterministic")
    prompt, free = long_answer(generator)
    stop = piece(free.text)
    cutting: dict[str, Any] = {"max_tokens": 24, "stop": [stop]}
    jobs = [(prompt, cutting), (prompt, {"max_tokens": 24})]
    cut, whole = asyncio.run(_at_once(generator, jobs))
    assert whole.text == free.text
    assert cut.text == free.text[: free.text.find(stop)]


def test_sampling_beside_greedy_leaves_greedy_alone(generator: Any, can: Any) -> None:
    need(can, "deterministic", "temperature")
    prompt = question(6)
    alone = answer(generator, prompt, 10).text
    hot = {"max_tokens": 10, "temperature": heat(generator)}
    got = asyncio.run(_at_once(generator, [(prompt, hot), (prompt, {"max_tokens": 10}), (prompt, hot)]))
    assert got[1].text == alone


def test_each_request_keeps_its_seed(generator: Any, can: Any) -> None:
    need(can, "seed", "temperature", "deterministic")
    prompt = question(7)
    settings: list[dict[str, Any]] = [
        {"max_tokens": 8, "temperature": 1.0, "seed": seed} for seed in (11, 12, 13)
    ]
    alone = [answer(generator, prompt, **s).text for s in settings]
    together = asyncio.run(_at_once(generator, [(prompt, s) for s in settings]))
    assert [one.text for one in together] == alone


def test_threads_do_not_mix_answers(generator: Any, can: Any) -> None:
    need(can, "deterministic")
    prompts = [question(n) for n in range(4)]
    alone = [answer(generator, prompt, 6).text for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda prompt: answer(generator, prompt, 6).text, prompts))
    assert together == alone


def test_one_failure_spares_its_neighbours(generator: Any, can: Any) -> None:
    need(can, "context")
    endless = "word " * (int(can.context) + 8)
    got = answer(generator, [question(1), endless, question(2)], 4, on_error="return")
    assert [one.error is None for one in got] == [True, False, True]
    assert isinstance(got[1].error, MemserveError)
    assert got[1].text is None


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
