"""What the endpoint costs over the call in this process, and what it gains by answering together.

python benchmarks/endpoint.py                       CPU a request, 64 in flight, an engine of no time
python benchmarks/endpoint.py --backend embedded    32 requests at once against one by one
python benchmarks/endpoint.py --backend hf --model FOLDER --options dtype=float32
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from memserve.client.generation import Generator
from memserve.client.handle import for_engine
from memserve.protocol import Capabilities, Completion, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memserve.protocol import Request

REQUESTS, IN_FLIGHT, TOKENS = 4000, 64, 32
TEXT = "word " * 50
KEY = {"Authorization": "Bearer k"}


class Instant:
    """An engine that answers at once, as a provider's answer would come."""

    any_loop = True
    capabilities = Capabilities(
        backend="instant", model="m", chat=True, temperature=True, top_p=True, max_tokens=True, usage=True
    )

    async def complete(self, request: Request) -> Completion:
        await asyncio.sleep(0)
        return Completion(TEXT, "stop", usage=Usage(50, 50), model="m")


def generator() -> Generator:
    return Generator(Instant(), for_engine(Instant(), IN_FLIGHT))


async def in_flight(work: Any, count: int, most: int) -> None:
    left = iter(range(count))

    async def one() -> None:
        for number in left:
            await work(number)

    await asyncio.gather(*(one() for _ in range(most)))


def direct() -> float:
    """CPU milliseconds a request of the call in this process."""
    model, talk = generator(), [{"role": "user", "content": TEXT}]
    began = time.process_time()
    asyncio.run(in_flight(lambda number: model.agenerate(talk, max_tokens=64), REQUESTS, IN_FLIGHT))
    return (time.process_time() - began) / REQUESTS * 1000


def serve(pipe: Any) -> None:
    """The endpoint over the same engine, until it is told to say what it took."""
    from aiohttp import web

    from memserve.serve.endpoint.app import Endpoint, Limits, Models

    async def run() -> None:
        models = Models()
        models.add("generate", generator(), ["m"])
        app = Endpoint(models, "k", Limits()).app()
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        while True:
            await asyncio.to_thread(pipe.recv)
            pipe.send(time.process_time())

    asyncio.run(run())


def over_the_wire() -> float:
    """CPU milliseconds a request in the endpoint's own process."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    process.start()
    port = here.recv()

    def cpu() -> float:
        here.send(None)
        return float(here.recv())

    async def ask() -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": TEXT}], "max_tokens": 64}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        async with aiohttp.ClientSession(headers=KEY, connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(number: int) -> None:
                async with session.post(url, json=body) as answer:
                    assert answer.status == 200
                    await answer.read()

            await in_flight(one, REQUESTS, IN_FLIGHT)

    asyncio.run(ask())  # connections and caches
    before = cpu()
    asyncio.run(ask())
    spent = cpu() - before
    process.terminate()
    return spent / REQUESTS * 1000


def overhead(rounds: int) -> None:
    pairs = [(over_the_wire(), direct()) for _ in range(rounds)]
    there, here = (statistics.median(column) for column in zip(*pairs, strict=True))
    extra = statistics.median(a - b for a, b in pairs)
    shown = f"endpoint {there:.3f} ms, call {here:.3f} ms, overhead {extra:.3f} ms"
    print(f"CPU a request, {IN_FLIGHT} in flight: {shown}")


@contextmanager
def served(words: list[str]) -> Iterator[tuple[int, str, str]]:
    """The command itself over a real backend: its process, its address and its key."""
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        command = [sys.executable, "-m", "memserve.serve", *words, "--name", "m", "--key-file", str(key)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            line = process.stdout.readline()
            yield process.pid, line.split()[1], key.read_text().strip()
            process.terminate()


async def answer(session: Any, url: str, number: int, stream: bool) -> int:
    """Ask one, and how many tokens came."""
    talk = [{"role": "user", "content": f"Tell me {number + 2} facts about the number {number}."}]
    body = {"model": "m", "messages": talk, "max_tokens": TOKENS, "stream": stream}
    async with session.post(url, json=body) as response:
        assert response.status == 200, await response.text()
        if stream:
            return sum(b'"content": "' in line for line in (await response.read()).split(b"\n\n"))
        return int((await response.json())["usage"]["completion_tokens"])


def cpu(pid: int) -> float:
    """CPU seconds of a process, all threads: what other processes do meanwhile does not count."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


async def compared(pid: int, url: str, key: str, count: int, stream: bool) -> tuple[float, float]:
    """The endpoint's CPU milliseconds a token, one by one and all at once."""
    headers = {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session:
        chat = f"{url}/chat/completions"
        await answer(session, chat, 0, stream)
        began = cpu(pid)
        alone = [await answer(session, chat, number, stream) for number in range(count)]
        middle = cpu(pid)
        together = await asyncio.gather(*(answer(session, chat, number, stream) for number in range(count)))
        end = cpu(pid)
    assert stream or sum(alone) == sum(together)
    return (middle - began) / sum(alone) * 1000, (end - middle) / sum(together) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend")
    parser.add_argument("--model")
    parser.add_argument("--options", nargs="+", default=[])
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if args.backend is None:
        return overhead(args.rounds)
    words = ["--backend", args.backend, "--task", "generate"]
    words += ["--model", args.model] * bool(args.model) + (
        ["--options", *args.options] if args.options else []
    )
    with served(words) as (pid, url, key):
        for stream in (False, True):
            alone, together = asyncio.run(compared(pid, url, key, args.count, stream))
            kind = "streams" if stream else "answers"
            shown = f"{together:.1f} ms of CPU a token, one by one {alone:.1f}: {alone / together:.2f} x"
            print(f"{args.backend}, {args.count} {kind} at once: {shown}", flush=True)
    return None


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
