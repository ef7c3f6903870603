"""Hundreds of thousands of queued requests, in the memory of a thousand."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest
from waiting import until

from memserve.errors import QuotaExceeded
from memserve.run import run


@pytest.mark.slow
def test_two_hundred_thousand_requests_in_flat_memory(fake, out):
    class Forgetful(fake):
        async def agenerate(self, prompt, **settings):
            return self.answer(prompt)

    resident = []

    def requests():
        for n in range(200_000):
            if n % 1000 == 0:
                resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
            yield {"id": n, "prompt": f"prompt {n}"}

    summary = run(requests(), out, generator=Forgetful())
    assert (summary.done, summary.failed) == (200_000, 0)
    assert max(resident[100:]) - max(resident[:20]) < 24 * 2**20
    with out.open("rb") as file:
        assert len({json.loads(line)["id"] for line in file}) == 200_000


@pytest.fixture
def read_ahead(fake, out):
    """How many requests are read while none is answered: at least so many, and then no more."""

    def measure(prompt, least):
        enough, read = threading.Event(), []

        class Stuck(fake):
            async def agenerate(self, prompt, **settings):
                while not enough.is_set():
                    await asyncio.sleep(0.01)
                raise QuotaExceeded("the test is over")

        def requests():
            for n in range(5000):
                read.append(n)
                yield f"{prompt}{n}"

        def stop():
            until(lambda: len(read) >= least)
            time.sleep(0.5)
            enough.count = len(read)
            enough.set()

        threading.Thread(target=stop).start()
        with pytest.raises(QuotaExceeded):
            run(requests(), out, generator=Stuck(), concurrency=4)
        return enough.count

    return measure


def test_the_reader_is_held_back_by_what_waits(read_ahead):
    assert 1000 < read_ahead("p", 1001) < 2500


def test_long_prompts_are_looked_ahead_at_by_their_size(read_ahead):
    assert 30 <= read_ahead("w" * 500_000, 30) < 90


def test_a_slow_reader_does_not_hold_answers_back(fake, out, rows):
    def requests():
        for n in range(4):
            yield f"p{n}"
            until(lambda n=n: len(rows(out)) > n)

    assert run(requests(), out, generator=fake()).done == 4
