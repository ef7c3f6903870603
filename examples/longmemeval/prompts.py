"""What the model and the judge are asked: in our words, or in those of the user's checkout (--original)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from examples.common import original
from examples.longmemeval.data import Instance

_RULE = (
    "The response is correct if it contains the correct answer, says the same in other words, or holds every "
    "step that leads to it; if it contains only a part of what is required, it is not."
)
_JUDGE = (
    "You compare a model's response with {what}. {rule}\n\nQuestion: {{}}\n{name}: {{}}\n"
    "Model response: {{}}\n\n{question} Reply with yes or no only."
)


def _judge(rule: str, what: str = "the correct answer to a question", name: str = "Correct answer",
           question: str = "Is the response correct?") -> str:  # fmt: skip
    return _JUDGE.format(what=what, rule=rule, name=name, question=question)


@dataclass(frozen=True)
class Prompts:
    """Every text with places to fill; `source` says whose words they are."""

    source: str = "memserve's own words"
    direct: str = (
        "Below are chats that you had with a user. Answer the question from what is relevant in them.\n\n"
        "{}\n\nToday is {}.\nQuestion: {}\nAnswer:"
    )
    steps: str = (
        "Below are chats that you had with a user. Answer the question from them step by step: first note "
        "all that is relevant, then reason from your notes to the answer.\n\n{}\n\nToday is {}.\n"
        "Question: {}\nAnswer, step by step:"
    )
    note: str = (
        "Read one chat between you and a user, and a question that the user asks later. Note everything in "
        'the chat that helps to answer; if nothing does, write "empty".\n\nChat of {}:\n{}\n\nToday is {}.\n'
        "Question: {}\nNotes:"
    )
    session: str = "\n[Session {}, {}]\n{}\n"
    judges: tuple[str, ...] = (
        _judge(_RULE),
        _judge(f"{_RULE} A count of days, weeks or months may be off by one."),
        _judge("The response is correct if it gives the updated answer; it may mention earlier ones, too."),
        _judge("The response is correct if it recalls and uses the user's personal information rightly; it "
               "need not meet every point of the rubric.", "a rubric of what the user would like", "Rubric"),
        _judge("The question cannot be answered from the chats. The response is correct if it says so; it "
               "may say that something is missing, or that only something else is known.",
               "an explanation of why a question cannot be answered", "Explanation",
               "Does the response recognize that the question cannot be answered?"),
    )  # fmt: skip
    KINDS: ClassVar[tuple[str, ...]] = ("temporal-reasoning", "knowledge-update", "single-session-preference")

    def verdict(self, one: Instance, told: str) -> str:
        """The judge's prompt for one response."""
        place = 4 if one.unanswerable else 0
        if not place and one.type in self.KINDS:
            place = 1 + self.KINDS.index(one.type)
        return self.judges[place].format(one.question, one.answer, told)


def of(folder: Path | None) -> Prompts:
    """Ours, or those of a checkout of the benchmark."""
    if folder is None:
        return Prompts()
    judge, reader = folder / "src/evaluation/evaluate_qa.py", folder / "src/generation/run_generation.py"
    return Prompts(
        source=f"the benchmark's checkout at {original.commit(folder)}",
        steps=original.nth(reader, "answer_prompt_template", 1, 3),
        direct=original.nth(reader, "answer_prompt_template", 2, 3),
        note=original.nth(reader, "con_prompt", 0, 4),
        session=original.holding(reader, "### Session {}", "Session Content"),
        judges=tuple(original.nth(judge, "template", place, 3) for place in range(5)),
    )
