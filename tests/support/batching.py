"""An engine that batches as real ones do, on the loop's clock: prompts in turn, then a step for all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memserve.protocol import Capabilities, Completion, Delta, Request, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class Batching:
    """One step at a time: it reads the prompts that wait, then makes a token for every request."""

    first: float = 0.02
    a_prompt_token: float = 0.0008
    a_step: float = 0.03
    a_sequence: float = 0.002
    a_kept_token: float = 1e-6
    """Per step and token that is held of all sequences."""
    waiting: list[tuple[Request, asyncio.Queue[str]]] = field(default_factory=list)
    worker: asyncio.Task[None] | None = None
    any_loop = True
    capabilities = Capabilities(
        backend="batching", chat=True, raw=True, max_tokens=True, temperature=True, top_p=True, usage=True,
        stream=True,
    )  # fmt: skip

    async def complete(self, request: Request) -> Completion:
        text = "".join([delta.text async for delta in self.astream(request)])
        return Completion(text=text, usage=self.usage(request))

    def usage(self, request: Request) -> Usage:
        return Usage(len(str(request.prompt).split()), request.max_tokens)

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        await asyncio.sleep(self.first)
        pieces: asyncio.Queue[str] = asyncio.Queue()
        self.waiting.append((request, pieces))
        if self.worker is None or self.worker.done():
            self.worker = asyncio.ensure_future(self.work())
        for _ in range(request.max_tokens or 1):
            yield Delta(await pieces.get())
        yield Delta("", "length", self.usage(request))

    async def work(self) -> None:
        held: list[list[int]] = []  # tokens still to make, tokens held
        queues: list[asyncio.Queue[str]] = []
        while self.waiting or held:
            for request, pieces in self.waiting:
                read = self.usage(request).prompt_tokens or 0
                await asyncio.sleep(self.a_prompt_token * read)
                held.append([request.max_tokens or 1, read])
                queues.append(pieces)
            self.waiting.clear()
            tokens = sum(one[1] for one in held)
            await asyncio.sleep(self.a_step + self.a_sequence * len(held) + self.a_kept_token * tokens)
            for one, pieces in zip(held, queues, strict=True):
                pieces.put_nowait("word ")
                one[0] -= 1
                one[1] += 1
            left = [at for at, one in enumerate(held) if one[0]]
            held, queues = [held[at] for at in left], [queues[at] for at in left]
