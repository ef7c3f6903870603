"""Warm up, learn how long a prompt is, then ask at each level of load and put the prediction beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import isinf
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, NamedTuple

from memserve.bench import asking, report
from memserve.bench.asking import Asked, Prompts
from memserve.bench.report import Report
from memserve.bench.target import Target
from memserve.cli import counted
from memserve.errors import ContextOverflow, InvalidInput
from memserve.hardware.detection import nvidia
from memserve.protocol import Request
from memserve.speed.workloads import Workload

Count = Callable[[str], int]
TOKENIZER = "tokenizer.json"
MOST_TOKENS = 10**9


class Level(NamedTuple):
    """How much is asked: so many requests in flight, or so many begun a second (`inf`: all at once)."""

    concurrency: int | None = None
    rate: float | None = None


class _Bench:
    """One measurement while it runs."""

    def __init__(self, target: Target, workload: Workload, prompts: Prompts, tokenizer: str | None) -> None:
        self.target, self.workload, self.prompts = target, workload, prompts
        self._count = _counter(target, tokenizer)
        ends = (name for name in target.generator.capabilities.extras if name.endswith("_ignore_eos"))
        self._whole = dict.fromkeys(ends, True)
        self.whole = bool(self._whole)
        """Where a server can be told to, every answer is as long as the workload says."""

    async def one(self, request: Request) -> Asked:
        request = replace(request, extra={**self._whole, **request.extra})
        asked = request.prompt if isinstance(request.prompt, str) else ""
        return replace(await asking.ask(self.target.generator, request), asked=asked)

    async def warm_up(self, requests: int) -> None:
        """Two prompts that show the tokens of a word, and further ones until so many are asked."""
        if not self.prompts.given:
            self.prompts.fit(*[await self._probe(words) for words in self.prompts.probes()])
        for request in self.prompts.draw(max(1, requests - 2)):
            _raised(await self.one(request))

    async def _probe(self, words: int) -> tuple[int, int]:
        text = self.prompts.words(words, f"probe {words}")
        asked = _raised(await self.one(Request(prompt=text, max_tokens=self._most())))
        return words, asked.usage.prompt_tokens or self._counted(text)

    def _most(self) -> int:
        return max(1, min(16, round(self.workload.output_tokens)))

    async def level(self, level: Level, even: bool, random: Random) -> list[Asked]:
        """Every request of one level, its tokens counted afterwards."""
        requests = self.prompts.draw(self.workload.requests)
        if level.rate is not None:
            found = await asking.opened(self.one, requests, level.rate, even, random)
        else:
            found = await asking.closed(self.one, requests, level.concurrency or 1)
        return [self._with_tokens(one) for one in found]

    def _with_tokens(self, one: Asked) -> Asked:
        if one.error is not None or one.usage.completion_tokens is not None:
            return one
        read = one.usage.prompt_tokens or (self._counted(one.asked) if one.asked else None)
        made = self._counted(one.text)
        return replace(one, usage=replace(one.usage, prompt_tokens=read, completion_tokens=made))

    def _counted(self, text: str) -> int:
        self._count = self._count or _beside(self.target)
        if self._count is None:
            raise InvalidInput("the server does not say how many tokens it made",
                               hint="--tokenizer FOLDER counts them: one with tokenizer.json")  # fmt: skip
        return self._count(text)


def _raised(one: Asked) -> Asked:
    """What fails while nothing is measured yet ends the measurement."""
    if isinstance(one.error, ContextOverflow):
        one.error.hint = "say a --workload IN:OUT:N with a smaller IN or OUT"
    if one.error is not None:
        raise one.error
    return one


def _counter(target: Target, tokenizer: str | None) -> Count | None:
    if tokenizer is not None:
        return _read(Path(tokenizer))
    generator = target.generator
    return (lambda text: len(generator.encode(text))) if generator.capabilities.tokenizer else None


def _beside(target: Target) -> Count | None:
    """The tokenizer that lies with the weights, where they are a folder's."""
    named = Path(str(target.facts.get("checkpoint") or ""))
    folder = named.parent if named.suffix == ".gguf" else named
    return _read(folder) if named.name and (folder / TOKENIZER).is_file() else None


def _read(folder: Path) -> Count:
    from tokenizers import Tokenizer

    words = Tokenizer.from_file(str(folder / TOKENIZER))
    return lambda text: len(words.encode(text, add_special_tokens=False).ids)


def measure(target: Target, workload: Workload, levels: Sequence[Level] = (Level(1),), **how: Any) -> Report:
    """Each level of load in turn, every request with a prompt of its own: `ameasure` names the options."""
    return asyncio.run(ameasure(target, workload, levels, **how))


async def ameasure(target: Target, workload: Workload, levels: Sequence[Level] = (Level(1),), *,
                   warm_up: int = 4, seed: int | None = None, even: bool = False, ttft: float | None = None,
                   tpot: float | None = None, tokenizer: str | None = None, file: str | None = None,
                   tell: Callable[[str], None] = lambda line: None) -> Report:  # fmt: skip
    """`measure`, awaited. `ttft` and `tpot` are targets in milliseconds, `tell` hears what goes on.

    `even` sends at a rate without chance; `tokenizer` is a folder that counts where a server does not;
    `file` holds the requests that are asked instead of made-up ones.
    """
    if not (file or workload.output_tokens):
        raise InvalidInput(f"{workload.name} has no output tokens, and what is measured here writes some",
                           hint="say IN:OUT:N with an OUT of 1 or more")  # fmt: skip
    chosen = SystemRandom().randrange(2**32) if seed is None else seed
    if not file and workload.prompt_tokens * workload.requests > MOST_TOKENS:
        raise InvalidInput(f"{workload.name} has more prompt tokens than the {MOST_TOKENS:,} made up here")
    bench, random = _Bench(target, workload, Prompts(workload, chosen, file), tokenizer), Random(chosen)
    most = max(level.concurrency or workload.requests for level in levels)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(most + 4))
    tell("warming up")
    await bench.warm_up(warm_up)
    rows, before = [], nvidia.energy()
    for level in levels:
        tell(f"{_named(level)}: {counted(workload.requests, 'request')}")
        asked = await bench.level(level, even, random)
        rows.append(_row(target, workload, level, report.row(asked, ttft=ttft, tpot=tpot)))
    after = nvidia.energy()
    memory = {
        **report.memory(target.pid), "energy_joules": before and after and round(after - before, 1),
        "planned_gib_per_card": target.planned or None, "startup_log": report.startup(target.log),
    }  # fmt: skip
    described = {
        "name": workload.name, "input_tokens": workload.prompt_tokens,
        "output_tokens": workload.output_tokens, "prefix_tokens": workload.prefix_tokens,
        "shared": workload.shared, "requests": workload.requests, "seed": chosen, "warm_up": warm_up,
        "whole_answers": bench.whole,
    }  # fmt: skip
    return Report(target.facts, described, tuple(rows), memory, target.notes)


def _named(level: Level) -> str:
    return f"{level.concurrency} at once" if level.rate is None else f"{level.rate:g} a second"


def _row(target: Target, workload: Workload, level: Level, found: dict[str, Any]) -> dict[str, Any]:
    """The figures of one level beside what is predicted for it."""
    load = level.concurrency or max(1.0, found["in_flight"] or 1.0)
    told = target.forecast and target.forecast(_as_asked(workload, found), load)
    predicted = told and {
        name: {end: float(f"{value:.4g}") for end, value in values.items()}
        for name, values in told.to_dict().items()
    }
    rate = None if level.rate is None else "inf" if isinf(level.rate) else level.rate
    return {"concurrency": level.concurrency, "rate": rate, **found, "predicted": predicted or None}


def _as_asked(workload: Workload, found: dict[str, Any]) -> Workload:
    """The workload with the tokens that were really read and made."""
    read = (found["input_tokens"] or workload.prompt_tokens) - workload.prefix_tokens
    made = found["output_tokens"] or workload.output_tokens
    return replace(workload, input_tokens=max(0.0, read), output_tokens=made)
