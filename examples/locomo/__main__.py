"""LoCoMo's question answering as its authors run it: retrieve, answer, score by category; on any backend.

python -m examples.locomo                                       # a scripted server, synthetic data
python -m examples.locomo --data locomo10.json --backend vllm --model Qwen/Qwen3-8B --retriever none
python -m examples.locomo --data locomo10.json --unit observation --top 5 10 25 50 --original locomo

With `--retriever none` hundreds of questions share one long conversation: the runner asks them one after the
other, so that the engine's prefix cache holds the conversation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from examples.common.bench import Bench, command, flags, opened, read, write_lines
from examples.common.report import Measure
from examples.locomo import prompts, reading
from examples.locomo.data import CATEGORIES, Conversation, Question, load
from examples.locomo.score import MORE, points, recall

ANSWER = 32
"""The most tokens of an answer: the benchmark's own."""
RULE = (
    "The response is correct if it means the same as the correct answer; it may be longer, and dates may be "
    "written in another way."
)
UNANSWERABLE = "The conversation does not say, and the response is correct only if it says so."
JUDGE = (
    "You compare a model's response with the correct answer to a question. {}\n\nQuestion: {}\n"
    "Correct answer: {}\nModel response: {}\n\nIs the response correct? Reply with yes or no only."
)


def main(words: Sequence[str] | None = None) -> dict[str, float]:
    chosen = options().parse_args(words)
    talks = read(load, chosen.data)
    asked = prompts.of(chosen.original)
    with opened(chosen, "LoCoMo, question answering") as bench:
        bench.report.facts |= {
            "data": f"{chosen.data or 'synthetic'}: {sum(len(talk.questions) for talk in talks)} questions",
            "prompts": asked.source, "unit": chosen.unit, "tokens of an answer": str(chosen.max_tokens),
        }  # fmt: skip
        stages = [stage(talks, bench, asked, size) for size in sizes(chosen)]
        bench.finish(stages[0])
    return {one.name: one.mean for one in next(iter(bench.report.tables.values()))}


def options() -> argparse.ArgumentParser:
    parser = flags("LoCoMo question answering on any backend")
    add = parser.add_argument
    add("--unit", choices=reading.UNITS, default="dialog", help="what is retrieved")
    add(
        "--top",
        type=int,
        nargs="+",
        default=[5],
        help="how much is retrieved; several: a sweep",
    )
    add("--context-tokens", type=int, nargs="+", default=[0], metavar="N",
        help="without a retriever: the latest so many tokens; several: a sweep; 0: all")  # fmt: skip
    add("--max-tokens", type=int, default=ANSWER, help="of an answer")
    add("--metrics", choices=tuple(MORE), nargs="*", default=(), help="besides F1, through their packages")
    add("--judge", action="store_true", help="memserve's addition: a model judges each answer")
    return parser


def sizes(chosen: argparse.Namespace) -> list[int]:
    """The sweep: how much is retrieved, or how much of the conversation is read."""
    found: list[int] = chosen.context_tokens if chosen.retriever == "none" else chosen.top
    return found


def stage(talks: Sequence[Conversation], bench: Bench, asked: prompts.Prompts, size: int) -> str:
    """One configuration: every question asked and scored; the name of its file of answers."""
    whole = bench.retriever is None
    label = f"{'context' if whole else 'top'} {size or 'all'}"
    alone = len(sizes(bench.chosen)) == 1
    name = "answers" if alone else f"answers-{label.replace(' ', '-')}"
    read = {talk.id: _whole(talk, bench, size) if whole else "" for talk in talks}
    found = {one.id: best(talk, one, bench, size) for talk in talks for one in talk.questions}
    requests = (
        {"id": one.id, "prompt": prompt(talk, one, asked, read[talk.id], found[one.id][0])}
        for talk in talks for one in talk.questions
    )  # fmt: skip
    told = bench.answer(requests, bench.chosen.max_tokens, name)
    every = [one for talk in talks for one in talk.questions]
    said = {one.id: prompts.chosen(one, told.get(one.id, "")) for one in every}
    write_lines(
        bench.chosen.out / f"{name.replace('answers', 'predictions')}.jsonl", published(every, said, found)
    )
    table = measured(every, said, bench.chosen.metrics)
    if not whole:
        table.append(Measure("recall", [recall(one, found[one.id][1]) for one in every]))
    if bench.chosen.judge:
        right = bench.judge(verdicts(every, said, told), name.replace("answers", "verdicts"))
        table.append(Measure("judge", [float(right.get(one.id, False)) for one in every]))
    bench.report.tables[label] = table
    return name


def _whole(talk: Conversation, bench: Bench, most: int) -> str:
    known = bench.answering.capabilities.tokenizer
    count = (lambda text: len(bench.answering.encode(text))) if known else (lambda text: len(text) // 4)
    return reading.whole(talk, most or None, count)


def best(talk: Conversation, question: Question, bench: Bench, top: int) -> tuple[str, list[str]]:
    """What was retrieved for a question, and the names of its turns or sessions."""
    if bench.retriever is None:
        return "", []
    unit = bench.chosen.unit
    held = reading.pieces(talk, unit)
    if not held:
        raise SystemExit(f"{talk.id}: this data has no {unit}s")
    order = bench.retriever.rank(question.text, [piece.text for piece in held])
    shown = [held[place] for place in order[:top]]
    return reading.retrieved(shown, unit), [name for piece in shown for name in piece.names]


def prompt(talk: Conversation, one: Question, asked: prompts.Prompts, whole: str, found: str) -> str:
    """The conversation first: what all its questions share."""
    text = asked.start.format(*talk.speakers) + whole if whole else found
    return f"{text}\n\n{asked.question(one)}"


def published(every: Sequence[Question], said: Mapping[str, str],
              found: Mapping[str, tuple[str, list[str]]]) -> Iterator[dict[str, Any]]:  # fmt: skip
    for one in every:
        yield {
            "id": one.id,
            "category": one.category,
            "prediction": said[one.id],
            "context": found[one.id][1],
        }


def measured(every: Sequence[Question], said: Mapping[str, str], more: Sequence[str]) -> list[Measure]:
    """F1 by category and of all, and what else was asked for; what has no answer counts 0."""
    rows = []
    for name, measure in {"F1": None, **{name: MORE[name] for name in more}}.items():
        values = {
            one.id: points(one, said[one.id]) if measure is None or one.category == 5
            else measure(said[one.id], one.answer)
            for one in every
        }  # fmt: skip
        for category, kind in CATEGORIES.items():
            rows.append(
                Measure(f"{name} {kind}", [values[one.id] for one in every if one.category == category])
            )
        rows.append(Measure(name, list(values.values())))
    return rows


def verdicts(
    every: Sequence[Question], said: Mapping[str, str], told: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    for one in every:
        if one.id in told:
            rule = UNANSWERABLE if one.category == 5 else RULE
            yield {
                "id": one.id,
                "prompt": JUDGE.format(rule, one.text, one.answer, " ".join(said[one.id].split())),
            }


if __name__ == "__main__":
    command(main)
