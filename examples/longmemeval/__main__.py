"""LongMemEval as its authors run it: index, retrieve, read, answer, judge, score; on any backend by one flag.

python -m examples.longmemeval                                            # a scripted server, synthetic data
python -m examples.longmemeval --data longmemeval_s.json --backend openai --model gpt-4o --retriever none
python -m examples.longmemeval --data longmemeval_s.json --granularity turn --original LongMemEval
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.common.bench import Bench, command, flags, opened, read, write_lines
from examples.common.report import Measure
from examples.common.retrieval import blanks
from examples.longmemeval import measures, prompts, reading
from examples.longmemeval.data import TYPES, Instance, load
from examples.longmemeval.index import EXPANSIONS, GRANULARITIES, JOINS, Document, Expansion, documents

from memserve.errors import InvalidInput

ANSWER, STEPS, NOTE = 500, 800, 500
"""The most tokens of an answer, of one step by step, and of a note: the benchmark's own."""
Rankings = dict[str, tuple[list[int], list[Document]]]


def main(words: Sequence[str] | None = None) -> dict[str, float]:
    chosen = options().parse_args(words)
    instances = read(load, chosen.data)
    asked = prompts.of(chosen.original)
    expansion = None
    if chosen.expansion:
        if not chosen.expansions:
            raise InvalidInput("--expansion needs --expansions FILE")
        expansion = Expansion.read(chosen.expansion, chosen.join, chosen.expansions)
    with opened(chosen, "LongMemEval", split=blanks) as bench:
        bench.report.facts |= said(chosen, asked.source, len(instances))
        ranked = rankings(instances, bench, chosen.granularity, expansion)
        bench.report.tables["retrieval"] = retrieval(instances, ranked, chosen.granularity)
        chunks = {one.id: shown(one, ranked, chosen) for one in instances}
        if chosen.reading == "con-separate":
            chunks = notes(instances, chunks, bench, asked)
        most = chosen.max_tokens or (ANSWER if chosen.reading == "direct" else STEPS)
        told = bench.answer(questions(instances, chunks, bench, asked, most), most)
        published = ({"question_id": name, "hypothesis": text} for name, text in told.items())
        write_lines(chosen.out / "hypotheses.jsonl", published)
        right = bench.judge(verdicts(instances, told, asked))
        bench.report.tables["answers"] = answers(instances, right)
        means = {one.name: one.mean for rows in bench.report.tables.values() for one in rows}
        by_type = [means[kind] for kind in TYPES if kind in means]
        means["task-averaged accuracy"] = sum(by_type) / max(1, len(by_type))
        bench.report.facts["task-averaged accuracy"] = f"{means['task-averaged accuracy']:.4f}"
        bench.finish()
    return means


def options() -> argparse.ArgumentParser:
    parser = flags("LongMemEval on any backend")
    add = parser.add_argument
    add("--granularity", choices=GRANULARITIES, default="session")
    add(
        "--top",
        type=int,
        default=5,
        help="sessions or rounds that the model reads; without a retriever 1000",
    )
    add("--expansion", choices=EXPANSIONS, help="expand the index's keys")
    add("--join", choices=JOINS, default="merge", help="how an expansion joins its key")
    add("--expansions", type=Path, help="the file of expansions, by session or turn")
    add("--reading", choices=("direct", "con", "con-separate"), default="direct", help="con: chain of note")
    add("--history", choices=("json", "nl"), default="json")
    add("--user-only", action="store_true", help="the model reads what the user said, and nothing else")
    add("--max-tokens", type=int, help=f"of an answer: {ANSWER}, step by step {STEPS}")
    return parser


def said(chosen: argparse.Namespace, source: str, count: int) -> dict[str, str]:
    """What a paper must say of this run."""
    names = ("granularity", "expansion", "join", "reading", "history", "user_only", "top")
    how = {name.replace("_", " "): str(getattr(chosen, name)) for name in names}
    return {"data": f"{chosen.data or 'synthetic'}: {count} questions", "prompts": source, **how}


def rankings(
    instances: Sequence[Instance], bench: Bench, granularity: str, expansion: Expansion | None
) -> Rankings:
    """Each instance's documents and their order; nothing without a retriever."""
    if bench.retriever is None:
        return {}
    found = {}
    for one in instances:
        held = documents(one, granularity, expansion)
        found[one.id] = bench.retriever.rank(one.question, [document.text for document in held]), held
    return found


def retrieval(instances: Sequence[Instance], ranked: Rankings, granularity: str) -> list[Measure]:
    """The benchmark's measures over the questions that its averages count."""
    counted = [ranked[one.id] for one in instances if one.id in ranked and measures.counts(one)]
    kinds = {granularity: measures.measured}
    if granularity == "turn":
        kinds["session"] = measures.by_session
    rows = []
    for kind, measure in kinds.items() if counted else ():
        for k in measures.AT:
            each = [measure(order, [document.id for document in held], k) for order, held in counted]
            for name, values in zip(
                ("recall_any", "recall_all", "ndcg_any"), zip(*each, strict=True), strict=True
            ):
                rows.append(Measure(f"{kind} {name}@{k}", values))
    return rows


def shown(one: Instance, ranked: Rankings, chosen: argparse.Namespace) -> list[reading.Chunk]:
    if one.id not in ranked:
        top = max(chosen.top, 1000)
        return reading.whole(one, chosen.granularity, top, user_only=chosen.user_only)
    order, held = ranked[one.id]
    return reading.retrieved(one, [held[place] for place in order], chosen.top, user_only=chosen.user_only)


def notes(instances: Sequence[Instance], chunks: Mapping[str, list[reading.Chunk]], bench: Bench,
          asked: prompts.Prompts) -> dict[str, list[reading.Chunk]]:  # fmt: skip
    """A note on each chunk, in a stage of its own."""
    requests = (
        {"id": f"{one.id}#{number}", "prompt": asked.note.format(chunk.date, json.dumps(chunk.content),
                                                                one.date, one.question)}
        for one in instances for number, chunk in enumerate(chunks[one.id])
    )  # fmt: skip
    told = bench.answer(requests, NOTE, "notes")
    return {
        one.id: reading.noted(
            chunks[one.id], [told.get(f"{one.id}#{n}", "") for n in range(len(chunks[one.id]))]
        )
        for one in instances
    }


def questions(instances: Sequence[Instance], chunks: Mapping[str, list[reading.Chunk]], bench: Bench,
              asked: prompts.Prompts, most: int) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The history first, so that questions about the same history share a prefix; then the question."""
    chosen = bench.chosen
    template = asked.direct if chosen.reading == "direct" else asked.steps
    for one in instances:
        text = reading.history(chunks[one.id], chosen.history, asked.session)
        read = reading.cut(text, bench.answering, most)
        yield {
            "id": one.id,
            "prompt": template.format(read, one.date, one.question),
            "meta": {"type": one.type},
        }


def verdicts(
    instances: Sequence[Instance], told: Mapping[str, str], asked: prompts.Prompts
) -> Iterator[dict[str, Any]]:
    """Only what was answered is judged; the rest counts as wrong, and stands in the file of failures."""
    for one in instances:
        if one.id in told:
            yield {"id": one.id, "prompt": asked.verdict(one, told[one.id])}


def answers(instances: Sequence[Instance], right: Mapping[str, bool]) -> list[Measure]:
    """Accuracy by type, overall, and of the questions that cannot be answered."""
    points = {one.id: float(right.get(one.id, False)) for one in instances}
    rows = [Measure(kind, [points[one.id] for one in instances if one.type == kind]) for kind in TYPES]
    absent = Measure("abstention", [points[one.id] for one in instances if one.unanswerable])
    return [row for row in (*rows, absent, Measure("accuracy", list(points.values()))) if row.values]


if __name__ == "__main__":
    command(main)
