"""LoCoMo's published format (locomo10.json), read from a file, or made small and synthetic."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
SPEAKERS = (("Mira", "Tomas"), ("Lena", "Oskar"), ("Priya", "Jonas"))
THINGS = ("kayak", "violin", "telescope", "bread oven", "greenhouse", "motorbike", "loom", "sketchbook")
PLACES = ("Bergen", "Porto", "Lviv", "Cusco", "Kyoto", "Tartu", "Oaxaca", "Bari")
MONTHS = ("January", "February", "March", "April", "May", "June")


@dataclass(frozen=True)
class Turn:
    """One message. A shared picture is present as its caption, as the data gives it."""

    id: str
    speaker: str
    text: str
    date: str

    @property
    def line(self) -> str:
        return f"[{self.date}] {self.speaker}: {self.text}"


@dataclass(frozen=True)
class Question:
    id: str
    text: str
    answer: str
    category: int
    evidence: Sequence[str]


@dataclass(frozen=True)
class Conversation:
    id: str
    speakers: tuple[str, str]
    turns: Sequence[Turn]
    questions: Sequence[Question]


def load(path: Path | None) -> list[Conversation]:
    """The conversations of locomo10.json; synthetic ones without a path."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path else synthetic()
    return [_conversation(row) for row in rows]


def _conversation(row: Mapping[str, Any]) -> Conversation:
    talk, name = row["conversation"], row["sample_id"]
    numbers = sorted(
        int(key.removeprefix("session_")) for key in talk if key.removeprefix("session_").isdigit()
    )
    turns = [
        _turn(turn, talk[f"session_{number}_date_time"])
        for number in numbers
        for turn in talk[f"session_{number}"]
    ]
    questions = [_question(name, place, asked) for place, asked in enumerate(row["qa"])]
    return Conversation(name, (talk["speaker_a"], talk["speaker_b"]), turns, questions)


def _turn(turn: Mapping[str, Any], date: str) -> Turn:
    caption = turn.get("blip_caption")
    text = turn["text"] + (f" [shares a picture: {caption}]" if caption else "")
    return Turn(turn["dia_id"], turn["speaker"], text, date)


def _question(name: str, place: int, asked: Mapping[str, Any]) -> Question:
    """Adversarial questions have no answer in the data, only a tempting wrong one."""
    answer = "no information available" if asked["category"] == 5 else str(asked["answer"])
    if asked["category"] == 3:
        answer = answer.split(";")[0].strip()  # what follows is the annotator's explanation
    return Question(
        f"{name}-{place}", asked["question"], answer, asked["category"], asked.get("evidence") or ()
    )


def synthetic(seed: int = 0) -> list[dict[str, Any]]:
    """Invented conversations in the published format, with questions of all five categories."""
    chance = random.Random(seed)
    return [_talk(number, pair, chance) for number, pair in enumerate(SPEAKERS)]


def _talk(number: int, pair: tuple[str, str], chance: random.Random) -> dict[str, Any]:
    conversation: dict[str, Any] = {"speaker_a": pair[0], "speaker_b": pair[1]}
    questions: list[dict[str, Any]] = []
    things, places = chance.sample(THINGS, 6), chance.sample(PLACES, 6)
    for session in range(1, 7):
        thing, place, month = things[session - 1], places[session - 1], MONTHS[session - 1]
        who, other = pair if session % 2 else pair[::-1]
        said = [
            f"Hello {other}, did you sleep well?",
            f"I did, {who}! Tell me what is new.",
            f"I bought a {thing} in {place} and could not be happier.",
            f"A {thing}! I would never dare; I still have my old radio.",
        ]
        conversation[f"session_{session}_date_time"] = f"1:00 pm on {session + 3} {month}, 2023"
        conversation[f"session_{session}"] = [
            {"speaker": (who, other)[n % 2], "dia_id": f"D{session}:{n + 1}", "text": text}
            for n, text in enumerate(said)
        ]
        questions += _asked(session, who, other, thing, place, month)
    bought = [things[n] for n in range(0, 6, 2)]
    evidence = [f"D{n}:3" for n in (1, 3, 5)]
    questions.append(
        {
            "question": f"What did {pair[0]} buy this year?",
            "answer": ", ".join(bought),
            "category": 1,
            "evidence": evidence,
        }
    )
    return {"sample_id": f"synthetic-{number}", "conversation": conversation, "qa": questions}


def _asked(session: int, who: str, other: str, thing: str, place: str, month: str) -> list[dict[str, Any]]:
    evidence = [f"D{session}:3"]
    return [
        {"question": f"Where did {who} buy a {thing}?", "answer": place, "category": 4, "evidence": evidence},
        {"question": f"When did {who} buy a {thing}?", "answer": f"{session + 3} {month}", "category": 2,
         "evidence": evidence},
        {"question": f"Does {who} enjoy the {thing}?", "answer": "Yes; could not be happier", "category": 3,
         "evidence": evidence},
        {"question": f"Where did {other} buy a {thing}?", "adversarial_answer": place, "category": 5,
         "evidence": evidence},
    ]  # fmt: skip
