"""What both benchmarks share: one flag for the backend, a stage that asks, and a judge's yes or no."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.common.demo import served
from examples.common.retrieval import Bm25, Dense, Retriever

import memserve
from memserve.protocol import Generator
from memserve.run import answers, run

DEMO = "demo"


def flags(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, help="the published data file; without it, small synthetic data")
    parser.add_argument("--out", type=Path, default=Path("results"), help="a folder; run again to resume")
    parser.add_argument("--backend", default=DEMO, help=f"any memserve backend; {DEMO}: a scripted server")
    parser.add_argument("--model", help="the model that answers")
    parser.add_argument("--base-url", help="the server of an HTTP backend")
    parser.add_argument("--judge-model", help="the model that judges; by default the one that answers")
    parser.add_argument("--judge-backend", help="its backend")
    parser.add_argument("--judge-base-url")
    parser.add_argument("--retriever", choices=("none", "bm25", "embedder"), default="bm25")
    parser.add_argument("--embedder", help="the embedding model")
    parser.add_argument("--embedder-backend", help="its backend; by default that of the model")
    parser.add_argument("--embedder-base-url")
    parser.add_argument("--top", type=int, default=5, help="how much is retrieved for a question")
    parser.add_argument("--concurrency", type=int, help="the most requests in flight")
    parser.add_argument("--budget", help="stop before more is spent on one stage: 20usd")
    return parser


@dataclass(frozen=True)
class Bench:
    """The opened models of one benchmark run."""

    chosen: argparse.Namespace
    answering: Generator
    judging: Generator
    retriever: Retriever | None

    def ask(self, name: str, requests: Iterable[Mapping[str, Any]], generator: Generator,
            max_tokens: int) -> dict[str, str]:  # fmt: skip
        """Run a stage; its answers by id. What is answered already is not asked again."""
        output = self.chosen.out / f"{name}.jsonl"
        settings = {"max_tokens": max_tokens, "temperature": 0.0}
        concurrency, budget = self.chosen.concurrency, self.chosen.budget
        summary = run(
            requests, output, generator=generator, settings=settings, concurrency=concurrency, budget=budget
        )
        print(f"{name}: {summary}")
        return {row["id"]: row["text"] or "" for row in answers(output)}

    def answer(self, requests: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        return self.ask("answers", requests, self.answering, max_tokens=500)

    def judge(self, requests: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
        told = self.ask("verdicts", requests, self.judging, max_tokens=10)
        return {name: "yes" in text.lower() for name, text in told.items()}


@contextmanager
def opened(chosen: argparse.Namespace) -> Iterator[Bench]:
    """Open the models that the flags name, and the demo server where one of them needs it."""
    with ExitStack() as stack:
        demo: list[str] = []

        def where(backend: str | None, url: str | None) -> dict[str, Any]:
            if backend != DEMO:
                return {"backend": backend, **({"base_url": url} if url else {})}
            demo[:] = demo or [stack.enter_context(served())]
            return {"backend": "openai", "base_url": demo[0], "api_key": "none"}

        model = chosen.model or (DEMO if chosen.backend == DEMO else None)
        answers_at = where(chosen.backend, chosen.base_url)
        answering = stack.enter_context(memserve.generator(model, **answers_at))
        judging = answering
        if chosen.judge_model or chosen.judge_backend:
            judge = where(chosen.judge_backend or chosen.backend, chosen.judge_base_url or chosen.base_url)
            judging = stack.enter_context(memserve.generator(chosen.judge_model or model, **judge))
        retriever: Retriever | None = Bm25() if chosen.retriever == "bm25" else None
        if chosen.retriever == "embedder":
            backend = chosen.embedder_backend or chosen.backend
            embeds_at = where(backend, chosen.embedder_base_url or chosen.base_url)
            name = chosen.embedder or (DEMO if backend == DEMO else None)
            retriever = Dense(stack.enter_context(memserve.embedder(name, **embeds_at)))
        chosen.out.mkdir(parents=True, exist_ok=True)
        yield Bench(chosen, answering, judging, retriever)


def verdict_prompt(question: str, answer: str, response: str, rule: str) -> str:
    """The judge's prompt: both benchmarks differ only in the rule."""
    return (
        f"You compare a model's response with the correct answer to a question. {rule}\n\n"
        f"Question: {question}\nCorrect answer: {answer}\nModel response: {' '.join(response.split())}\n\n"
        "Is the response correct? Reply with yes or no only."
    )


def mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
