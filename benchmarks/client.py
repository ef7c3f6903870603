"""Client CPU per chat request with a typed answer, against an instant server on loopback.

    python benchmarks/client.py [--requests 3000] [--clients memserve,aiohttp,httpx,openai,litellm]

Every client runs in a process of its own and sends the same request at 1, 32 and 256 in flight. What is not
installed is left out. CPU is the client process's own; requests/s depends on the machine and the server too.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

IN_FLIGHT = (1, 32, 256)
CLIENTS = ("memserve", "aiohttp", "httpx", "openai", "litellm")
PROMPT = "What is the answer to the question? " * 8
BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0,
    "top_p": 1,
    "max_tokens": 512,
}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1745725506,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The answer is 42."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 64, "completion_tokens": 9, "total_tokens": 73},
    }
).encode()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)


class Instant(asyncio.Protocol):
    """A server that answers every request at once."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._seen = transport, b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while (end := self._seen.find(b"\r\n\r\n")) >= 0:
            head = self._seen[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0
            if len(self._seen) < end + 4 + length:
                return
            self._seen = self._seen[end + 4 + length :]
            self._transport.write(HEAD + ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def memserve_client(url: str, run: Callable[..., Awaitable[None]]) -> None:
    import memserve

    async with memserve.generator("m", backend="openai", base_url=url, api_key="k") as generator:

        async def one() -> None:
            assert (await generator.agenerate(PROMPT)).usage.completion_tokens == 9

        await run(one)


async def aiohttp_client(url: str, run: Callable[..., Awaitable[None]]) -> None:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one() -> None:
            async with session.post(f"{url}/chat/completions", json=BODY) as response:
                assert (await response.json())["usage"]["completion_tokens"] == 9

        await run(one)


async def httpx_client(url: str, run: Callable[..., Awaitable[None]]) -> None:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=600) as client:

        async def one() -> None:
            response = await client.post(f"{url}/chat/completions", json=BODY)
            assert response.json()["usage"]["completion_tokens"] == 9

        await run(one)


async def openai_client(url: str, run: Callable[..., Awaitable[None]]) -> None:
    import openai

    async with openai.AsyncOpenAI(base_url=url, api_key="k") as client:

        async def one() -> None:
            answer = await client.chat.completions.create(**BODY)  # type: ignore[call-overload]
            assert answer.usage.completion_tokens == 9

        await run(one)


async def litellm_client(url: str, run: Callable[..., Awaitable[None]]) -> None:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it looks for a table on the internet
    import litellm

    async def one() -> None:
        answer = await litellm.acompletion(**{**BODY, "model": "openai/m"}, api_base=url, api_key="k")
        assert answer.usage.completion_tokens == 9

    await run(one)


async def measure(client: str, url: str, flying: int, requests: int) -> dict[str, Any]:
    """CPU milliseconds and requests per second of one client at one concurrency."""
    found: dict[str, Any] = {"client": client, "in_flight": flying}

    async def run(one: Callable[[], Awaitable[None]]) -> None:
        async def worker(count: int) -> None:
            for _ in range(count):
                await one()

        await asyncio.gather(*(worker(3) for _ in range(flying)))
        each = max(1, requests // flying)
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.gather(*(worker(each) for _ in range(flying)))
        found["cpu_ms"] = (time.process_time() - cpu) / (each * flying) * 1e3
        found["per_s"] = each * flying / (time.perf_counter() - wall)

    await globals()[f"{client}_client"](url, run)
    return found


def import_ms() -> float:
    """CPU milliseconds of `import memserve`, above the bare interpreter; the best of five."""

    def cpu(code: str) -> float:
        words = f"import time; {code}; print(time.process_time())"
        return min(float(subprocess.check_output([sys.executable, "-c", words])) for _ in range(5))

    return (cpu("import memserve") - cpu("pass")) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many rounds counts")
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--one", nargs=3, metavar=("CLIENT", "URL", "IN_FLIGHT"), help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(serve())
    elif asked.one:
        client, url, flying = asked.one
        print(json.dumps(asyncio.run(measure(client, url, int(flying), asked.requests))))
    else:
        compare([name for name in asked.clients.split(",") if importlib.util.find_spec(name)], asked)


def compare(clients: list[str], asked: argparse.Namespace) -> None:
    """One row per client and concurrency, and what it comes to."""
    this = [sys.executable, str(Path(__file__)), "--requests", str(asked.requests)]
    server = subprocess.Popen([*this, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        print(f"import memserve: {import_ms():.0f} ms CPU\n")
        print(f"{'client':<10} {'in flight':>9} {'CPU ms':>8} {'req/s':>8}")
        speed = {}
        for client in clients:
            for flying in IN_FLIGHT:
                one = [*this, "--one", client, url, str(flying)]
                rounds = [json.loads(subprocess.check_output(one)) for _ in range(asked.rounds)]
                cpu, speed[client] = min(r["cpu_ms"] for r in rounds), max(r["per_s"] for r in rounds)
                print(f"{client:<10} {flying:>9} {cpu:>8.3f} {speed[client]:>8.0f}", flush=True)
        for client in [c for c in clients if c != "memserve" and "memserve" in speed]:
            print(f"memserve at 256 in flight: {speed['memserve'] / speed[client]:.1f} x {client}")
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
