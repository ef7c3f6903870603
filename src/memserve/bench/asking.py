"""What is asked, and how: distinct prompts, one request as its caller sees it, two ways to send many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf
from random import Random

from memserve.client.generation import Generator
from memserve.errors import MemserveError
from memserve.protocol import Request, Usage
from memserve.speed.workloads import Workload

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
    asked: str = ""
    """The prompt, where it was a text."""


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


_TEXT = (
    "the of and to in is that for it was on are as with his they at be this from have or by one had not "
    "but what all were when we there can an your which their said if do will each about how up out them "
    "then she many some so these would other into has more"
)
WORDS = tuple(_TEXT.split())
"""Common enough that tokenizers have each as one token."""


class Prompts:
    """The requests of a workload, drawn by a seed; those of a file as they stand, again and again."""

    def __init__(self, workload: Workload, seed: int, file: str | None = None) -> None:
        self._workload = workload
        self._seed = seed
        self._drawn = 0
        self._tokens_a_word, self._template = 1.0, 0.0
        self.given = _of_file(file) if file else ()

    def fit(self, first: tuple[int, int], second: tuple[int, int]) -> None:
        """Learns from two (words, tokens) what a word and what the chat template takes."""
        (words, tokens), (fewer, least) = sorted((first, second), reverse=True)
        if words > fewer and tokens > least:
            self._tokens_a_word = (tokens - least) / (words - fewer)
            self._template = tokens - words * self._tokens_a_word

    def probes(self) -> tuple[int, int]:
        """Words of two prompts that `fit` can learn from."""
        whole = max(2, round(self._workload.prompt_tokens))
        return whole, max(1, whole // 2)

    def draw(self, count: int) -> list[Request]:
        """So many further requests."""
        if self.given:
            return [self.given[index % len(self.given)] for index in range(count)]
        self._drawn += -self._drawn % self._workload.shared  # nobody before shares these prefixes
        return [self._next() for _ in range(count)]

    def words(self, count: int, mark: str) -> str:
        """So many words; other ones under another mark."""
        return " ".join(Random(f"{self._seed} {mark}").choices(WORDS, k=count))

    def _next(self) -> Request:
        number, load = self._drawn, self._workload
        self._drawn += 1
        prefix = self._count(load.prefix_tokens, self._template) if load.prefix_tokens else 0
        own = self._count(load.input_tokens, 0.0 if prefix else self._template)
        texts = [self.words(prefix, f"prefix {number // load.shared}"), self.words(max(1, own), str(number))]
        return Request(prompt=" ".join(filter(None, texts)), max_tokens=max(1, round(load.output_tokens)))

    def _count(self, tokens: float, template: float) -> int:
        return max(0, round((tokens - template) / self._tokens_a_word))


def _of_file(name: str) -> Sequence[Request]:
    from memserve.run import requests

    return tuple(requests.read_item(value, index, {}).request for index, _, value in requests.entries(name))
