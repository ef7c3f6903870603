"""LongMemEval end to end: retrieve, answer, judge, score; on any backend by one flag.

python -m examples.longmemeval                                            # a scripted server, synthetic data
python -m examples.longmemeval --data longmemeval_s.json --backend openai --model gpt-4o --retriever none
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from examples.common.bench import flags, mean, opened, verdict_prompt, write_lines
from examples.common.retrieval import Retriever
from examples.longmemeval.data import Instance, load

RULE = (
    "The response is correct if it contains the correct answer or says the same in other words; "
    "if it contains only a part of what is required, it is not."
)
RULES = {
    "temporal-reasoning": f"{RULE} A count of days, weeks or months may be off by one.",
    "knowledge-update": f"{RULE} It may mention earlier values too, as long as it gives the updated one.",
    "single-session-preference": "The correct answer is a rubric of what the user would like: the response "
    "is correct if it recalls and uses the user's personal information rightly, not in every point.",
}
UNANSWERABLE = "The question cannot be answered from the history, and the response is correct if it says so."


def main(words: Sequence[str] | None = None) -> dict[str, float]:
    chosen = flags("LongMemEval on any backend").parse_args(words)
    instances = load(chosen.data)
    with opened(chosen) as bench:
        found = {one.id: sessions(one, bench.retriever, chosen.top) for one in instances}
        told = bench.answer(questions(instances, found))
        write_lines(
            chosen.out / "hypotheses.jsonl",
            ({"question_id": name, "hypothesis": text} for name, text in told.items()),
        )
        right = bench.judge(verdicts(instances, told))
    scores = score(instances, right)
    if bench.retriever:
        scores["recall of evidence sessions"] = recall(instances, found)
    for name, value in scores.items():
        print(f"{name:32} {value:.3f}")
    return scores


def sessions(one: Instance, retriever: Retriever | None, top: int) -> list[int]:
    """Places of the sessions that are shown, in the order of time."""
    if retriever is None:
        return list(range(len(one.sessions)))
    texts = ["\n".join(turn["content"] for turn in session) for session in one.sessions]
    return sorted(retriever.rank(one.question, texts)[:top])


def questions(instances: Sequence[Instance], found: dict[str, list[int]]) -> Iterator[dict[str, Any]]:
    for one in instances:
        yield {"id": one.id, "prompt": prompt(one, found[one.id]), "meta": {"type": one.type}}


def prompt(one: Instance, places: Sequence[int]) -> str:
    """The history first, so that questions about the same history share a prefix; then the question."""
    parts = [f"### Session of {one.session_dates[place]}\n{_shown(one, place)}" for place in places]
    return (
        "Below is the history of your chats with a user. Answer the question from it.\n\n"
        + "\n\n".join(parts)
        + f"\n\nToday is {one.date}.\nQuestion: {one.question}"
    )


def _shown(one: Instance, place: int) -> str:
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in one.sessions[place])


def verdicts(instances: Sequence[Instance], told: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Only what was answered is judged; the rest counts as wrong, and stands in the file of failures."""
    for one in instances:
        if one.id in told:
            rule = UNANSWERABLE if one.unanswerable else RULES.get(one.type, RULE)
            yield {"id": one.id, "prompt": verdict_prompt(one.question, one.answer, told[one.id], rule)}


def score(instances: Sequence[Instance], right: dict[str, bool]) -> dict[str, float]:
    types = sorted({one.type for one in instances})
    scores = {kind: mean(right.get(one.id, False) for one in instances if one.type == kind) for kind in types}
    scores["unanswerable"] = mean(right.get(one.id, False) for one in instances if one.unanswerable)
    return {**scores, "accuracy": mean(right.get(one.id, False) for one in instances)}


def recall(instances: Sequence[Instance], found: dict[str, list[int]]) -> float:
    """Share of the evidence sessions that were retrieved, over the questions that have evidence."""
    shares = []
    for one in instances:
        shown = {one.session_ids[place] for place in found[one.id]}
        if one.evidence and not one.unanswerable:
            shares.append(len(shown & set(one.evidence)) / len(set(one.evidence)))
    return mean(shares)


if __name__ == "__main__":
    main()
