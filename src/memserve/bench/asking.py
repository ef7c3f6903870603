"""One request as its caller sees it, and two ways to send many: so many in flight, or so many a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from random import Random

from memserve.client.generation import Generator
from memserve.errors import MemserveError
from memserve.protocol import Request, Usage

NOTHING = Usage()


@dataclass(frozen=True)
class Asked:
    """When one request was sent and its pieces came, in seconds of the loop's clock."""

    began: float
    ended: float
    pieces: tuple[float, ...] = ()
    """When something of the answer arrived: a thought or a text, however many tokens it holds."""
    usage: Usage = NOTHING
    text: str = ""
    error: MemserveError | None = None


Ask = Callable[[Request], Awaitable[Asked]]


async def ask(generator: Generator, request: Request) -> Asked:
    """One request; what fails is kept with its reason."""
    clock = asyncio.get_running_loop().time
    began, pieces, texts, usage = clock(), [], [], NOTHING
    try:
        if not generator.capabilities.stream:
            whole = await generator.agenerate(request)
            return Asked(began, clock(), (), whole.usage, (whole.reasoning or "") + (whole.text or ""))
        async for delta in generator.astream(request):
            if delta.text or delta.reasoning or delta.tool_calls:
                pieces.append(clock())
                texts.append(delta.reasoning + delta.text)
            usage = delta.usage or usage
    except MemserveError as error:
        return Asked(began, clock(), error=error)
    return Asked(began, clock(), tuple(pieces), usage, "".join(texts))


async def closed(one: Ask, requests: Sequence[Request], in_flight: int) -> list[Asked]:
    """So many in flight until all are answered: who has an answer asks the next."""
    queue = iter(requests)

    async def caller() -> list[Asked]:
        return [await one(request) for request in queue]

    callers = await asyncio.gather(*(caller() for _ in range(min(in_flight, len(requests)))))
    return [asked for several in callers for asked in several]


async def opened(
    one: Ask, requests: Sequence[Request], rate: float, even: bool, random: Random
) -> list[Asked]:
    """So many a second, whatever is answered: at random moments (Poisson) or evenly; `inf`: all at once."""
    loop = asyncio.get_running_loop()
    due, tasks = loop.time(), []
    for request in requests:
        await asyncio.sleep(max(0.0, due - loop.time()))
        tasks.append(asyncio.ensure_future(one(request)))
        due += 0.0 if rate == inf else 1 / rate if even else random.expovariate(rate)
    return list(await asyncio.gather(*tasks))
