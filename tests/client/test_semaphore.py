"""The bound on what is in flight holds over all loops and threads of a process, and no place is ever lost."""

from __future__ import annotations

import asyncio
import threading

from memserve.client.async_driver import Semaphore

MOST = 3


class Meter:
    """Counts who is inside at once."""

    def __init__(self) -> None:
        self.semaphore = Semaphore(MOST)
        self._lock = threading.Lock()
        self.inside = self.peak = self.passed = 0

    def _count(self, by: int) -> None:
        with self._lock:
            self.inside += by
            self.peak = max(self.peak, self.inside)
            self.passed += by > 0

    async def enter(self, seconds: float = 0.002) -> None:
        async with self.semaphore:
            self._count(1)
            try:
                await asyncio.sleep(seconds)
            finally:
                self._count(-1)


async def several(meter: Meter, times: int) -> None:
    await asyncio.gather(*(meter.enter() for _ in range(times)))


def test_many_loops_share_one_bound():
    meter = Meter()
    threads = [threading.Thread(target=lambda: asyncio.run(several(meter, 20))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (meter.peak, meter.passed, meter.inside) == (MOST, 120, 0)


def test_who_is_cancelled_takes_no_place_along():
    meter = Meter()

    async def main() -> None:
        waiting = [asyncio.create_task(meter.enter(0.01)) for _ in range(30)]
        for first in range(10):
            await asyncio.sleep(0.004)
            for task in waiting[first::7]:
                task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.wait_for(several(meter, 2 * MOST), 5)

    asyncio.run(main())
    assert meter.peak <= MOST


def test_a_loop_that_dies_gives_its_places_back():
    meter = Meter()
    dead = asyncio.new_event_loop()
    for _ in range(MOST):
        dead.run_until_complete(meter.semaphore.__aenter__())  # and nobody ever leaves
    dead.close()
    asyncio.run(asyncio.wait_for(several(meter, MOST), 5))


def test_the_longest_waiting_is_next():
    semaphore, order = Semaphore(1), []

    async def one(number: int) -> None:
        async with semaphore:
            order.append(number)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(one(number) for number in range(10)))

    asyncio.run(main())
    assert order == list(range(10))


def test_a_place_passes_from_loop_to_loop():
    meter = Meter()
    meter.semaphore = Semaphore(1)
    other = threading.Thread(target=lambda: asyncio.run(several(meter, 5)))
    other.start()
    asyncio.run(several(meter, 5))
    other.join(60)
    assert meter.passed == 10
