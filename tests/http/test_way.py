"""The way to the server: refused, slow to start, cut, kept alive too long."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading

import pytest
from faulty_server import SSE_HEAD, FaultyServer, piece, raw, reply

import memserve
from memserve import errors

OK = reply()
HANG = raw(b"", hang=True)
LOADING = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}


def test_a_server_that_never_answers(server, open_generator):
    server.will(HANG)
    with pytest.raises(errors.TimedOut):
        open_generator(timeout=0.4, max_retries=1).generate("hi")
    assert len(server.posts) == 2


def test_the_first_byte_has_its_own_limit(server, open_generator):
    server.will(HANG, OK)
    assert open_generator(timeout=3600, first_byte_timeout=0.5).generate("hi").text == "ok"
    assert len(server.posts) == 2


def test_a_stream_that_stalls(server, open_generator):
    server.will(raw(SSE_HEAD + piece("half"), hang=True))
    with pytest.raises(errors.TimedOut):
        list(open_generator(timeout=3600, idle_timeout=0.3).stream("hi"))
    assert len(server.posts) == 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_drops_after_the_request(reset, server, open_generator):
    server.will(raw(b"", reset=reset), OK)
    assert open_generator().generate("hi").text == "ok"
    server.will(raw(b"", reset=reset))
    server.posts.clear()
    with pytest.raises(errors.ConnectionFailed):
        open_generator().generate("hi")
    assert len(server.posts) == 3


def test_a_stale_connection_costs_no_attempt(server, open_generator):
    server.will(OK, raw(b""), OK)
    generator = open_generator(max_retries=0)
    assert generator.generate("one").text == "ok"
    assert generator.generate("two").text == "ok"
    assert len(server.posts) == 3


def test_a_connection_is_kept(server, open_generator):
    server.will(OK)
    generator = open_generator(dialect="generic")
    for _ in range(5):
        generator.generate("hi")
    assert server.connections == 1


def _free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_nobody_listens(quick):
    with (
        memserve.generator(
            "m", backend="openai", base_url=f"http://127.0.0.1:{_free_port()}/v1", timeout=0.5
        ) as g,
        pytest.raises(errors.ConnectionFailed, match="refused"),
    ):
        g.generate("hi")


def test_a_server_that_starts_late(quick):
    late = FaultyServer(port=_free_port()).will(OK)
    timer = threading.Timer(1.0, late.__enter__)
    with memserve.generator(
        "m", backend="openai", base_url=late.base_url, timeout=30, max_retries=2
    ) as generator:
        timer.start()
        assert generator.generate("hi").text == "ok"
    timer.join()
    late.__exit__()


def test_a_name_that_does_not_resolve(quick):
    address = "http://no-such-host.invalid/v1"
    with (
        memserve.generator("m", backend="openai", base_url=address, timeout=5, max_retries=1) as generator,
        pytest.raises(errors.ConnectionFailed) as caught,
    ):
        generator.generate("hi")
    assert caught.value.retryable


def test_a_model_that_loads_is_waited_for_on_health(server, open_generator):
    turns = iter([reply(503, LOADING)] * 2 + [reply(200, {"status": "ok"})] * 9)
    server.will(reply(503, LOADING), OK)

    async def health(wire):
        await next(turns)(wire)

    server.health = health
    assert open_generator().generate("hi").text == "ok"
    assert len(server.gets) == 3
    assert len(server.posts) == 2


def test_loading_without_a_health_route_is_bounded(server, open_generator):
    server.will(reply(503, LOADING))
    with pytest.raises(errors.Overloaded, match="Loading model"):
        open_generator().generate("hi")
    assert len(server.posts) == 3


def test_any_loop_and_any_number_of_them(server, open_generator):
    server.will(OK)
    generator = open_generator()
    for _ in range(3):
        answers = asyncio.run(_many(generator))
        assert [a.text for a in answers] == ["ok"] * 20
        assert generator.generate("between").text == "ok"


async def _many(generator):
    return await asyncio.gather(*(generator.agenerate("hi") for _ in range(20)))


async def test_sync_calls_inside_a_running_loop(server, open_generator):
    server.will(OK)
    generator = open_generator()
    assert generator.generate("hi").text == "ok"
    assert (await generator.agenerate("hi")).text == "ok"
    await generator.aclose()


async def test_a_cancelled_request_leaves_the_rest_alone(server, open_generator):
    server.will(HANG, OK)
    generator = open_generator(timeout=30)
    task = asyncio.create_task(generator.agenerate("slow"))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await generator.agenerate("hi")).text == "ok"


def test_an_abandoned_stream_is_closed(server, open_generator):
    server.will(raw(SSE_HEAD + piece("a"), hang=True), OK)
    generator = open_generator(timeout=30)
    stream = generator.stream("hi")
    assert next(stream).text == "a"
    stream.close()
    assert generator.generate("hi").text == "ok"


def test_a_fork_has_its_own_connections(server, open_generator):
    import os

    server.will(OK)
    generator = open_generator()
    generator.generate("hi")
    child = os.fork()
    if child == 0:
        os._exit(0 if generator.generate("hi").text == "ok" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert generator.generate("hi").text == "ok"


def test_the_number_in_flight_is_bounded(server, open_generator):
    now, most = 0, 0

    async def act(wire):
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        await OK(wire)

    server.will(act)
    answers = open_generator(concurrency=4, timeout=20).generate(["hi"] * 40)
    assert len(answers) == 40
    assert most <= 4


@pytest.mark.slow
def test_a_server_that_takes_nothing_leaves_no_connection_behind(open_generator):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(5)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        generator = open_generator(base_url=url, timeout=0.5, max_retries=0)
        with pytest.raises(errors.TimedOut):
            generator.generate("x" * 20_000_000)
        generator.close()
    gc.collect()  # a transport that was left behind would warn, which is an error here
