"""What the model is asked: in our own words, or in those of the user's checkout (--original)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from examples.common import original
from examples.locomo.data import Question

NOWHERE = "Not mentioned in the conversation"
FILES = ("gpt_utils.py", "evaluate_gpts.py")
"""Of the benchmark's newer and older versions, where the prompts stand."""


@dataclass(frozen=True)
class Prompts:
    """Every text with places to fill; `source` says whose words they are."""

    source: str = "memserve's own words"
    start: str = (
        "Below is a conversation between {} and {} over many days. Each part begins with its date.\n\n"
    )
    ask: str = (
        "\nFrom the conversation above, answer the question in a short phrase, in its own words if you can."
        "\n\nQuestion: {} Short answer:\n"
    )
    ask_choice: str = "\nFrom the conversation above, answer the question.\n\nQuestion: {} Short answer:\n"
    date: str = " Give an approximate date, from the dates of the conversation."
    choice: str = " Choose the right answer: (a) {} (b) {}. "

    def question(self, asked: Question) -> str:
        """The question with what its category adds, in the prompt's frame."""
        if asked.category == 5:
            return self.ask_choice.format(asked.text + self.choice.format(*choices(asked)))
        return self.ask.format(asked.text + (self.date if asked.category == 2 else ""))


def of(folder: Path | None) -> Prompts:
    """Ours, or those of a checkout of the benchmark."""
    if folder is None:
        return Prompts()
    files = [folder / "task_eval" / name for name in FILES]
    file = next((one for one in files if one.is_file()), files[0])
    return Prompts(
        source=f"the benchmark's checkout at {original.commit(folder)}",
        start=original.nth(file, "CONV_START_PROMPT", 0, 2),
        ask=original.nth(file, "QA_PROMPT", 0, 1),
        ask_choice=original.nth(file, "QA_PROMPT_CAT_5", 0, 1),
        date=original.holding(file, "Use DATE of CONVERSATION"),
        choice=original.holding(file, "(a) {} (b) {}"),
    )


def choices(asked: Question) -> tuple[str, str]:
    """The tempting answer and the right one, in an order that the question's name decides."""
    both = [NOWHERE, asked.tempting]
    random.Random(asked.id).shuffle(both)
    return both[0], both[1]


def chosen(asked: Question, told: str) -> str:
    """The text of the letter that was answered; any other answer stays as it is."""
    text = told.strip().lower()
    if asked.category != 5 or len(text) not in (1, 3):
        return told.strip() if asked.category != 5 else text
    first, second = choices(asked)
    return first if text in ("a", "(a)") or (len(text) == 1 and "a" in text) or "(a)" in text else second
