"""LongMemEval's published format, read from a file, or made small and synthetic to try the pipeline."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.common.bench import rows_of

TOPICS = ("bread", "bicycles", "gardening", "chess", "painting", "hiking", "tea", "radio", "stars", "maps")
FACTS = (  # type, what the user or the assistant says, question, answer
    ("single-session-user", "user", "My {0} teacher is called {1}.", "What is my {0} teacher called?", "{1}"),
    ("single-session-assistant", "assistant", "For {0} I recommend the shop {1} House.",
     "Which shop did you recommend for {0}?", "{1} House"),
    ("temporal-reasoning", "user", "I joined the {0} club {1} on 3 March.",
     "On which day did I join the {0} club {1}?", "3 March"),
    ("single-session-preference", "user", "When it is about {0}, I only like books by {1}.",
     "Can you suggest a book about {0}, by whom I like?", "books by {1}"),
)  # fmt: skip
TYPES = ("single-session-user", "single-session-preference", "single-session-assistant", "multi-session",
         "temporal-reasoning", "knowledge-update")  # fmt: skip
Turn = Mapping[str, Any]
NAMES = ("Ada", "Bruno", "Chen", "Dana", "Emil", "Farah", "Goran", "Hana", "Ines", "Jun")


@dataclass(frozen=True)
class Instance:
    """One question with its history."""

    id: str
    type: str
    question: str
    answer: str
    date: str
    session_ids: Sequence[str]
    session_dates: Sequence[str]
    sessions: Sequence[Sequence[Turn]]
    evidence: Sequence[str]

    @property
    def unanswerable(self) -> bool:
        return "_abs" in self.id


def load(path: Path | None) -> list[Instance]:
    """The instances of the s, m and oracle files, cleaned or not, as a list or lines; or synthetic ones."""
    rows = rows_of(path) if path else synthetic()
    return [_read(row) for row in rows]


def _read(row: Mapping[str, Any]) -> Instance:
    parts = [row[name] for name in ("haystack_session_ids", "haystack_dates", "haystack_sessions")]
    if not isinstance(row["question"], str) or len({*map(len, parts)}) > 1:
        raise ValueError(f"{row['question_id']}: a question, and as many dates and ids as sessions")
    return Instance(
        id=row["question_id"],
        type=row["question_type"],
        question=row["question"],
        answer=str(row["answer"]),
        date=row["question_date"],
        session_ids=row["haystack_session_ids"],
        session_dates=row["haystack_dates"],
        sessions=row["haystack_sessions"],
        evidence=row["answer_session_ids"],
    )


def synthetic(count: int = 30, sessions: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    """Invented instances in the published format; every sixth is an update, every tenth unanswerable."""
    chance = random.Random(seed)
    return [_instance(number, sessions, chance) for number in range(count)]


def _instance(number: int, sessions: int, chance: random.Random) -> dict[str, Any]:
    kind, speaker, said, asked, answer = FACTS[number % len(FACTS)]
    topic, name, rival = chance.choice(TOPICS), *chance.sample(NAMES, 2)
    history = [_chat(chance) for _ in range(sessions)]
    places = sorted(chance.sample(range(sessions), 2))
    absent, update = number % 10 == 9, number % 6 == 5
    if update:
        kind, asked, answer = "knowledge-update", "Who is my {0} teacher now?", "{1}"
        history[places[0]].append(_turn("user", f"My {topic} teacher is {rival}.", True))
        speaker, said = "user", "My {0} teacher is now {1}, no longer the one before."
    if not absent:
        history[places[1]].append(_turn(speaker, said.format(topic, name), True))
    held = places if update else places[1:]
    ids = [
        f"{'answer_' if place in held and not absent else ''}{number}_{place}" for place in range(sessions)
    ]
    return {
        "question_id": f"q{number}" + ("_abs" if absent else ""),
        "question_type": kind,
        "question": asked.format(topic, name),
        "answer": "The history does not say." if absent else answer.format(topic, name),
        "question_date": "2023/06/01 (Thu) 09:00",
        "haystack_session_ids": ids,
        "haystack_dates": [f"2023/05/{place + 1:02} (Mon) 10:00" for place in range(sessions)],
        "haystack_sessions": history,
        "answer_session_ids": [] if absent else [ids[place] for place in held],
    }


def _chat(chance: random.Random) -> list[dict[str, Any]]:
    topic, number = chance.choice(TOPICS), chance.randint(2, 40)
    return [
        _turn("user", f"I read {number} pages on {topic} yesterday and enjoyed them."),
        _turn("assistant", f"Wonderful! {topic.capitalize()} rewards patience; shall I list more to read?"),
        _turn("user", f"Yes, and remind me that {topic} week begins on day {chance.randint(1, 28)}."),
    ]


def _turn(role: str, content: str, has_answer: bool = False) -> dict[str, Any]:
    return {"role": role, "content": content, "has_answer": has_answer}
