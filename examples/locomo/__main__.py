"""LoCoMo's question answering end to end: retrieve, answer, score by F1 and by a judge; on any backend.

    python -m examples.locomo                                          # a scripted server, synthetic data
    python -m examples.locomo --data locomo10.json --backend vllm --model Qwen/Qwen3-8B --retriever none

With `--retriever none` hundreds of questions share one long conversation: the runner asks them one after the
other, so that the engine's prefix cache holds the conversation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from examples.common.bench import Bench, flags, mean, opened, verdict_prompt, write_lines
from examples.locomo.data import CATEGORIES, Conversation, Question, load
from examples.locomo.score import points

RULE = (
    "The response is correct if it means the same as the correct answer; it may be longer, and dates may be "
    "written in another way."
)
UNANSWERABLE = "The conversation does not say, and the response is correct only if it says so."


def main(words: Sequence[str] | None = None) -> dict[str, float]:
    chosen = flags("LoCoMo question answering on any backend").parse_args(words)
    conversations = load(chosen.data)
    asked = [question for talk in conversations for question in talk.questions]
    with opened(chosen) as bench:
        found = {
            question.id: turns(talk, question, bench) for talk in conversations for question in talk.questions
        }
        told = bench.answer(questions(conversations, found))
        write_lines(
            chosen.out / "predictions.jsonl",
            ({"id": name, "prediction": text} for name, text in told.items()),
        )
        right = bench.judge(verdicts(asked, told))
        scores = score(asked, told, right)
        if bench.retriever:
            scores["recall of evidence turns"] = recall(conversations, found)
    for name, value in scores.items():
        print(f"{name:32} {value:.3f}")
    return scores


def turns(talk: Conversation, question: Question, bench: Bench) -> list[int]:
    """Places of the turns that are shown, in the order of time."""
    if bench.retriever is None:
        return list(range(len(talk.turns)))
    ranked = bench.retriever.rank(question.text, [turn.line for turn in talk.turns])
    return sorted(ranked[: bench.chosen.top])


def questions(
    conversations: Sequence[Conversation], found: Mapping[str, Sequence[int]]
) -> Iterator[dict[str, Any]]:
    for talk in conversations:
        for question in talk.questions:
            yield {"id": question.id, "prompt": prompt(talk, question, found[question.id])}


def prompt(talk: Conversation, question: Question, places: Sequence[int]) -> str:
    """The conversation first: what all its questions share."""
    shown = "\n".join(talk.turns[place].line for place in places)
    return (
        f"Below is a conversation between {talk.speakers[0]} and {talk.speakers[1]}.\n\n{shown}\n\n"
        "Answer in a short phrase, in words of the conversation where possible, with a date where one is "
        'asked for. If the conversation does not say, answer "no information available".\n'
        f"Question: {question.text}"
    )


def verdicts(asked: Sequence[Question], told: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for question in asked:
        if question.id in told:
            rule = UNANSWERABLE if question.category == 5 else RULE
            text = verdict_prompt(question.text, question.answer, told[question.id], rule)
            yield {"id": question.id, "prompt": text}


def score(asked: Sequence[Question], told: Mapping[str, str], right: Mapping[str, bool]) -> dict[str, float]:
    """F1 and the judge's share by category; what has no answer counts as wrong."""
    scores = {}
    for category, name in CATEGORIES.items():
        among = [question for question in asked if question.category == category]
        scores[f"F1 {name}"] = mean(points(question, told.get(question.id, "")) for question in among)
        scores[f"judge {name}"] = mean(right.get(question.id, False) for question in among)
    scores["F1"] = mean(points(question, told.get(question.id, "")) for question in asked)
    scores["judge"] = mean(right.get(question.id, False) for question in asked)
    return scores


def recall(conversations: Sequence[Conversation], found: Mapping[str, Sequence[int]]) -> float:
    shares = []
    for talk in conversations:
        for question in talk.questions:
            shown = {talk.turns[place].id for place in found[question.id]}
            if question.evidence:
                shares.append(len(shown & set(question.evidence)) / len(set(question.evidence)))
    return mean(shares)


if __name__ == "__main__":
    main()
