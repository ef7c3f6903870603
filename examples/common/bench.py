"""What both benchmarks share: one flag for the backend, a stage that asks, its cost, a judge's yes or no."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from examples.common.demo import served
from examples.common.report import Report, costs, version
from examples.common.retrieval import Bm25, Dense, Retriever, words

import memserve
from memserve import cli
from memserve.errors import InvalidInput, RunError
from memserve.files import STUMBLES
from memserve.protocol import Generator
from memserve.run import answers, run

DEMO = "demo"
PRICED = ("1xL4", "1xH100", "openai:gpt-4o-mini")
CNY_PER_USD = 7.1
MISSING = "without an answer"
T = TypeVar("T")


def command(main: Callable[[], object]) -> NoReturn:
    """End with a code: 1, and one line, where something went wrong or has no answer."""
    sys.exit(cli.answer(lambda: cli.DONE if main() else cli.FAILED, failed=cli.FAILED))


def read(load: Callable[[Path | None], Sequence[T]], path: Path | None) -> Sequence[T]:
    """The data, or one line of what is wrong with it."""
    try:
        found = load(path)
    except STUMBLES as error:
        why = f"{type(error).__name__}: {error}"
        raise InvalidInput(f"{path} is not in the published form ({why})") from error
    if not found:
        raise InvalidInput(f"{path} holds no question")
    return found


def flags(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        help="the published data, in any layout; without it, small synthetic data",
    )
    add("--out", type=Path, default=Path("results"), help="a folder; run again to resume")
    add("--original", type=Path, metavar="FOLDER", help="take the prompts from this checkout")
    add("--backend", default=DEMO, help=f"any memserve backend; {DEMO}: a scripted server")
    add("--model", help="the model that answers")
    add("--base-url", help="the server of an HTTP backend")
    add("--judge-model", help="the model that judges; by default the one that answers")
    add("--judge-backend", help="its backend")
    add("--judge-base-url")
    add("--retriever", choices=("none", "bm25", "embedder"), default="bm25")
    add("--embedder", help="the embedding model")
    add("--embedder-backend", help="its backend; by default that of the model")
    add("--embedder-base-url")
    add("--concurrency", type=int, help="the most requests in flight")
    add("--budget", help="stop before more is spent on one stage: 20usd")
    add(
        "--costs",
        nargs="*",
        metavar="SPEC",
        default=list(PRICED),
        help="machines and providers of the cost sheet",
    )
    add("--cny-per-usd", type=float, default=CNY_PER_USD, help=f"taken for the cost sheet: {CNY_PER_USD}")
    return parser


@dataclass(frozen=True)
class Bench:
    """The opened models of one benchmark run."""

    chosen: argparse.Namespace
    answering: Generator
    judging: Generator
    retriever: Retriever | None
    report: Report

    def ask(self, name: str, requests: Iterable[Mapping[str, Any]], generator: Generator,
            max_tokens: int) -> dict[str, str]:  # fmt: skip
        """Run a stage; its answers by id. What is answered already is not asked again."""
        output = self.chosen.out / f"{name}.jsonl"
        known = generator.capabilities.temperature
        settings = {"max_tokens": max_tokens, **({"temperature": 0.0} if known else {})}
        summary = run(requests, output, generator=generator, settings=settings,
                      concurrency=self.chosen.concurrency, budget=self.chosen.budget)  # fmt: skip
        print(f"{name}: {summary}")
        if lost := summary.failed + summary.pending:
            self.report.facts[f"{name} {MISSING}"] = f"{lost} of {summary.total}, which count as wrong"
        rows = list(answers(output))
        used = [row.get("usage") or {} for row in rows]
        self.report.spent[name] = {
            "requests": len(rows), "prompt_tokens": sum(one.get("prompt_tokens") or 0 for one in used),
            "completion_tokens": sum(one.get("completion_tokens") or 0 for one in used), "usd": summary.usd,
        }  # fmt: skip
        return {row["id"]: row["text"] or "" for row in rows}

    def answer(
        self, requests: Iterable[Mapping[str, Any]], max_tokens: int, name: str = "answers"
    ) -> dict[str, str]:
        return self.ask(name, requests, self.answering, max_tokens)

    def judge(self, requests: Iterable[Mapping[str, Any]], name: str = "verdicts") -> dict[str, bool]:
        told = self.ask(name, requests, self.judging, max_tokens=10)
        return {one: "yes" in text.lower() for one, text in told.items()}

    def finish(self, stage: str = "answers") -> None:
        """The cost sheet of what this stage took, and the page."""
        spent, chosen = self.report.spent[stage], self.chosen
        count = max(1, spent["requests"])
        each = spent["prompt_tokens"] // count, spent["completion_tokens"] // count, spent["requests"]
        named = None if chosen.backend == DEMO else chosen.model
        try:
            self.report.sheet = costs(named, chosen.costs, each, chosen.cny_per_usd) if chosen.costs else []
        except memserve.errors.MemserveError as error:
            print(f"no cost sheet: {error}")
        self.report.facts["yuan for a dollar"] = f"{chosen.cny_per_usd} (--cny-per-usd)"
        self.report.print()
        self.report.write(chosen.out)
        print(f"report: {chosen.out / 'report.html'}")
        if lost := [f"{fact}: {said}" for fact, said in self.report.facts.items() if fact.endswith(MISSING)]:
            raise RunError("; ".join(lost), hint=f"{chosen.out}/*.failed.jsonl says why; run again")


@contextmanager
def opened(chosen: argparse.Namespace, title: str,
           split: Callable[[str], list[str]] = words) -> Iterator[Bench]:  # fmt: skip
    """Open the models that the flags name, and the demo server if one needs it; `split`: BM25's words."""
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
        retriever: Retriever | None = Bm25(split) if chosen.retriever == "bm25" else None
        if chosen.retriever == "embedder":
            backend = chosen.embedder_backend or chosen.backend
            embeds_at = where(backend, chosen.embedder_base_url or chosen.base_url)
            name = chosen.embedder or (DEMO if backend == DEMO else None)
            retriever = Dense(stack.enter_context(memserve.embedder(name, **embeds_at)))
        chosen.out.mkdir(parents=True, exist_ok=True)
        facts = {"answered by": f"{answering.capabilities.backend}: {answering.capabilities.model}",
                 "judged by": f"{judging.capabilities.backend}: {judging.capabilities.model}",
                 "retriever": chosen.embedder or chosen.retriever, "with": version()}  # fmt: skip
        yield Bench(chosen, answering, judging, retriever, Report(title, facts))


def rows_of(path: Path) -> list[Any]:
    """The objects of a .json file with a list, of one with one object, or of a .jsonl file."""
    text = path.read_text(encoding="utf-8")
    try:
        found = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    return found if isinstance(found, list) else [found]


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
