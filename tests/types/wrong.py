"""Calls that a checker must refuse, numbered, one a line. Read by mypy and pyright, never run."""

from __future__ import annotations

import memserve
import memserve.plan
import memserve.run
from memserve.protocol import Backend, Capabilities, Completion, Generator, Raw, Request, Settings


def generating(generator: Generator) -> None:
    generator.generate("hi", max_tokns=5)  # 1
    generator.generate("hi", max_tokens="5")  # 2
    generator.generate("hi", temperature="hot")  # 3
    generator.generate("hi").txt  # 4
    generator.generate(3.5)  # 5
    generator.generate(["a", "b"]).text  # 6
    generator.generate(None)  # 7
    generator.generate("hi", on_error="ignore")  # 8
    generator.generate("hi", truncate="right")  # 9
    generator.generate("hi", stop=5)  # 10
    generator.generate("hi", schema="object")  # 11
    generator.generate("hi", choices=[1, 2])  # 12
    generator.generate("hi", 5)  # 13
    list(generator.generate([{"role": "user", "content": "hi"}]))  # 14
    generator.stream("hi", frobnicate=1)  # 15
    generator.stream(["a", "b"])  # 16
    generator.score([("only a context",)])  # 17
    generator.count_tokens(5)  # 18


async def awaiting(generator: Generator) -> None:
    (await generator.agenerate("hi", max_token=5))  # 19
    (await generator.agenerate(["a"])).text  # 20


def others(generator: Generator) -> None:
    memserve.genrator("model")  # 21
    memserve.embedder("model").embed(["a"], normalise=True)  # 22
    memserve.run.run(["a"], "out.jsonl", generator=generator, settings={"max_tokns": 5})  # 23
    Request(prompt="hi", max_tokens="5")  # 24
    Capabilities(backend="mine", chat="yes")  # 25
    memserve.reranker("model").rerank(["q"], ["a"])  # 26
    memserve.generator(5)  # 27
    settings: Settings = {"temperature": "hot"}  # 28
    backend: Backend = Raw("hi")  # 29
    memserve.plan.best("llama-70b", "4xV100", conext=5)  # 30
    Completion(txt="hi")  # 31
    memserve.run.run(["a"], "out.jsonl", generator=generator, concurency=5)  # 32
