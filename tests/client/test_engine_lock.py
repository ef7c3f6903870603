"""An engine that does one thing at a time: an open stream stops nobody, and the end comes at once."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

import memserve
from memserve import errors
from memserve.client.generation import Generator
from memserve.client.handle import for_engine
from memserve.protocol import Capabilities, Completion, Delta

KNOWN = Capabilities(backend="single", engine="0", model="m", chat=True, max_tokens=True, stream=True, n=True)


class Single:
    """Notes what overlaps; its streams take a while and must be closed."""

    capabilities = KNOWN

    def __init__(self):
        self.busy, self.overlapped, self.open, self.closed, self.stopped = False, False, 0, 0, False

    def generate(self, requests):
        self.overlapped |= self.busy or self.open > 0
        self.busy = True
        for _ in range(200):
            if self.stopped or not any(r.prompt == "long" for r in requests):
                break
            time.sleep(0.05)
        self.busy = False
        if self.stopped:
            raise errors.Closed("interrupted")
        return [Completion(text=str(request.prompt), finish_reason="stop") for request in requests]

    def stream(self, request):
        self.overlapped |= self.busy or self.open > 0
        self.open += 1
        try:
            for letter in "abc":
                yield Delta(letter)
            if request.prompt == "crash":
                raise RuntimeError("CUDA error")
            if request.prompt == "slow":
                time.sleep(0.3)
            yield Delta("d", "stop")
        finally:
            self.open -= 1

    def interrupt(self):
        self.stopped = True

    def close(self):
        self.overlapped |= self.busy or self.open > 0
        self.closed += 1


@pytest.fixture
def engine():
    return Single()


@pytest.fixture
def generator(engine, monkeypatch):
    room = type("Room", (), {"capabilities": KNOWN, "open": staticmethod(lambda *_, **__: engine)})
    monkeypatch.setattr(memserve.registry, "find", lambda name: room)
    with memserve.generator("m", backend="single") as generator:
        yield generator
    assert not engine.overlapped
    assert engine.open == 0


def test_a_call_within_a_stream_is_answered(generator):
    seen = [(delta.text, generator.generate("x").text) for delta in generator.stream("y")]
    assert seen == [("a", "x"), ("b", "x"), ("c", "x"), ("d", "x")]


def test_streams_side_by_side_are_whole(generator):
    pairs = zip(generator.stream("x"), generator.stream("y"), strict=True)
    assert "".join(a.text + b.text for a, b in pairs) == "aabbccdd"


def test_an_abandoned_stream_is_given_up(generator, engine):
    forgotten = generator.stream("x")
    next(forgotten)
    del forgotten
    gc.collect()
    assert engine.open == 0


def test_a_stream_that_breaks_while_another_works_tells_its_own_reader(generator):
    broken = generator.stream("crash")
    assert next(broken).text == "a"
    assert generator.generate("x").text == "x"
    with pytest.raises(errors.EngineFailed, match="CUDA error"):
        list(broken)


def test_closing_beside_an_open_stream_tells_its_reader(generator, engine):
    half = generator.stream("x")
    next(half)
    generator.close()
    assert engine.closed == 1
    with pytest.raises(errors.Closed):
        list(half)


def test_closing_interrupts_what_runs(generator):
    told = []

    def ask():
        with pytest.raises(errors.Closed) as caught:
            generator.generate("long")
        told.append(caught.value)

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.2)
    generator.close()
    thread.join(60)
    assert told


@pytest.mark.slow
def test_a_stream_keeps_its_generator_alive(engine, monkeypatch):
    room = type("Room", (), {"capabilities": KNOWN, "open": staticmethod(lambda *_, **__: engine)})
    monkeypatch.setattr(memserve.registry, "find", lambda name: room)
    letters = []
    for delta in memserve.generator("m", backend="single").stream("x"):
        gc.collect()
        letters.append(delta.text)
    assert "".join(letters) == "abcd"


async def test_a_cancelled_reader_leaves_the_engine_free(generator, engine):
    async def read():
        async for _ in generator.astream("slow"):
            pass

    task = asyncio.create_task(read())
    await asyncio.sleep(0.15)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.open == 0
    assert (await generator.agenerate("x")).text == "x"


async def test_what_still_waits_is_told_of_the_end(generator):
    tasks = [asyncio.create_task(generator.agenerate("long")) for _ in range(3)]
    await asyncio.sleep(0.2)
    tasks += [asyncio.create_task(generator.agenerate("later")) for _ in range(2)]
    await asyncio.sleep(0.05)
    await generator.aclose()
    told = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert all(isinstance(error, errors.Closed) for error in told)


def test_a_slip_of_samples_is_refused(generator):
    with pytest.raises(errors.InvalidInput, match="at most"):
        generator.generate("x", n=10**9, temperature=1)


class Joining:
    """Joins calls itself, and is told which request is given up."""

    concurrent = True
    capabilities = KNOWN

    def __init__(self):
        self.given_up, self.ended = [], threading.Event()

    def generate(self, requests):
        if any(request.prompt == "long" for request in requests):
            self.ended.wait(60)
        return [Completion(text=str(request.prompt), finish_reason="stop") for request in requests]

    def give_up(self, request):
        self.given_up.append(request.prompt)
        self.ended.set()


async def test_who_is_cancelled_is_given_up_and_holds_nobody_up():
    engine = Joining()
    with Generator(engine, for_engine(engine, 8)) as held:
        long = asyncio.ensure_future(held.agenerate("long"))
        short = await asyncio.gather(*(held.agenerate(f"short {n}") for n in range(3)))
        assert [one.text for one in short] == ["short 0", "short 1", "short 2"]
        assert not long.done()
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
    assert engine.given_up == ["long"]
