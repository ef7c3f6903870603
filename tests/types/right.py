"""Calls that a checker must accept, numbered. Read by mypy and pyright, never run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from typing_extensions import assert_type

import memserve
import memserve.plan
import memserve.run
import memserve.speed
from memserve.protocol import (
    BatchEngine,
    Capabilities,
    Completion,
    Delta,
    Embeddings,
    Engine,
    Generator,
    Ranking,
    Raw,
    Request,
    Score,
    Settings,
    SupportsScore,
)


def generating(columns: list[str], array: NDArray[np.str_]) -> None:
    with memserve.generator("model", backend="openai", base_url="http://127.0.0.1/v1") as generator:  # 1
        assert_type(generator.generate("hi"), Completion)  # 2
        assert_type(generator.generate(Raw("hi"), max_tokens=5, temperature=0.5), Completion)  # 3
        assert_type(generator.generate([{"role": "user", "content": "hi"}]), Completion)  # 4
        assert_type(generator.generate([1, 15043]), Completion)  # 5
        assert_type(generator.generate(Request(prompt="hi", n=2, stop=("\n",))), Completion)  # 6
        assert_type(generator.generate(columns, stop="\n", seed=1, top_k=40), list[Completion])  # 7
        assert_type(generator.generate([[{"role": "user", "content": "hi"}]]), list[Completion])  # 8
        assert_type(generator.generate(array), list[Completion])  # 9
        assert_type(generator.generate((Raw(text) for text in columns), n=3), list[Completion])  # 10
        generator.generate("hi", schema={"type": "object"}, logprobs=5, on_error="return")  # 11
        generator.generate("hi", tools=[{"type": "function"}], tool_choice="auto")  # 12
        generator.generate("hi", choices=["yes", "no"], truncate="middle", max_tokens=None)  # 13
        generator.generate("hi", extra={"openai_service_tier": "flex"})  # 14
        for delta in generator.stream("hi", regex="[ab]+"):  # 15
            assert_type(delta, Delta)
        assert_type(generator.score([("The sky is", " blue"), (Raw(""), "a")]), list[Score])  # 16
        assert_type(generator.count_tokens([{"role": "user", "content": "hi"}]), int)  # 17
        held: Generator = generator  # 18
        row: dict[str, object] = held.generate("hi").to_dict()  # 19
        print(row)


async def awaiting(generator: Generator) -> None:
    assert_type(await generator.agenerate("hi", min_p=0.1), Completion)  # 20
    assert_type(await generator.agenerate(["a", "b"]), list[Completion])
    async for delta in generator.astream("hi", max_tokens=3):
        print(delta.text, delta.usage)


def others(folder: Path) -> None:
    found = memserve.embedder(folder).embed(["a"], role="query", normalize=True, dimensions=8)  # 21
    assert_type(found, Embeddings)
    assert_type(memserve.reranker("m", backend="openai").rerank("q", ("a", "b")), Ranking)
    settings: Settings = {"max_tokens": 20, "stop": ["\n"]}
    plan = memserve.plan.best("llama-70b", "4xV100")
    with memserve.generator(plan, concurrency=8) as generator:  # 22
        summary = memserve.run.run(["a"], "out.jsonl", generator=generator, settings=settings)  # 23
        print(summary.answered)


class Mine:
    """An engine of somebody's own."""

    capabilities = Capabilities(backend="mine", chat=True)

    def generate(self, requests: list[Request]) -> list[Completion]:
        return [Completion(text="hi") for _ in requests]


def engines(engine: Engine) -> list[Score]:
    if isinstance(engine, SupportsScore):  # 24
        return list(engine.score([("a", "b")]))
    print(isinstance(engine, BatchEngine))
    return []


class Open:
    """A backend of somebody's own."""

    capabilities = Capabilities(backend="mine", tasks=frozenset({"generate"}))

    def open(
        self, model: str | None = None, *, task: memserve.protocol.Task = "generate", **options: object
    ) -> Mine:
        return Mine()


backend: memserve.protocol.Backend = Open()  # 25
