"""LoCoMo's published files in each layout there is, or small synthetic data in the newer one."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.common.bench import rows_of

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
    def said(self) -> str:
        return f'{self.speaker} said, "{self.text}"'


@dataclass(frozen=True)
class Question:
    id: str
    text: str
    answer: str
    category: int
    evidence: Sequence[str]
    tempting: str = ""
    """Of an adversarial question: the wrong answer that it suggests."""


@dataclass(frozen=True)
class Conversation:
    """A talk; its observations and summaries (session, date, text, turns) where the data has them."""

    id: str
    speakers: tuple[str, str]
    turns: Sequence[Turn]
    questions: Sequence[Question]
    observations: Sequence[tuple[int, str, str, tuple[str, ...]]] = ()
    summaries: Sequence[tuple[int, str, str]] = ()


def load(path: Path | None) -> list[Conversation]:
    """locomo10.json; a conversation's file, a folder or a .zip of them; synthetic data without a path."""
    if path is None:
        return [_conversation(row, row["sample_id"]) for row in synthetic()]
    return [_conversation(row, name) for name, row in _rows(path)]


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as packed:
            for name in sorted(name for name in packed.namelist() if name.endswith(".json")):
                if "__MACOSX" not in name:
                    yield Path(name).stem, json.loads(packed.read(name))
        return
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        for place, row in enumerate(rows_of(file)):
            yield row.get("sample_id", f"{file.stem}-{place}" if place else file.stem), row


def _conversation(row: Mapping[str, Any], name: str) -> Conversation:
    """Newer files keep the sessions in `conversation`, the rest beside it; older ones all in one object."""
    talk = row.get("conversation", row)
    if "speaker_a" not in talk or "qa" not in row:
        raise SystemExit(f"{name}: no conversation of LoCoMo (speaker_a, session_1, qa, ...)")
    ends = (key.removeprefix("session_") for key in talk)
    numbers = sorted(int(end) for end in ends if end.isdigit() and talk[f"session_{end}"])
    dates = {number: talk[f"session_{number}_date_time"] for number in numbers}
    turns = [_turn(turn, dates[number]) for number in numbers for turn in talk[f"session_{number}"]]
    questions = [_question(name, place, asked) for place, asked in enumerate(row["qa"])]
    noted, summed = row.get("observation", talk), row.get("session_summary", talk)
    observations = [
        (number, dates[number], text, names)
        for number in numbers
        for text, names in _observed(noted.get(f"session_{number}_observation") or {})
    ]
    summaries = [(number, dates[number], text) for number in numbers
                 if (text := summed.get(f"session_{number}_summary"))]  # fmt: skip
    speakers = (talk["speaker_a"], talk["speaker_b"])
    return Conversation(name, speakers, turns, questions, observations, summaries)


def _observed(noted: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for facts in noted.values():
        for text, names in facts:
            parts = names.split(",") if isinstance(names, str) else names
            yield text, tuple(part.strip() for part in parts)


def _turn(turn: Mapping[str, Any], date: str) -> Turn:
    caption = turn.get("blip_caption")
    text = turn.get("clean_text", turn["text"]) + (f" [shares a picture: {caption}]" if caption else "")
    return Turn(turn["dia_id"], turn["speaker"], text, date)


def _question(name: str, place: int, asked: Mapping[str, Any]) -> Question:
    """Adversarial questions have no answer in the data, only a tempting wrong one."""
    category, evidence = asked["category"], asked.get("evidence") or ()
    answer = str(asked.get("answer", ""))
    if category == 3:
        answer = answer.split(";")[0].strip()  # what follows is the annotator's explanation
    tempting = str(asked.get("adversarial_answer", answer)) if category == 5 else ""
    said = "no information available" if category == 5 else answer
    return Question(f"{name}-{place}", asked["question"], said, category, evidence, tempting)


def synthetic(seed: int = 0) -> list[dict[str, Any]]:
    """Invented conversations in the published format, with questions of all five categories."""
    chance = random.Random(seed)
    return [_talk(number, pair, chance) for number, pair in enumerate(SPEAKERS)]


def _talk(number: int, pair: tuple[str, str], chance: random.Random) -> dict[str, Any]:
    conversation: dict[str, Any] = {"speaker_a": pair[0], "speaker_b": pair[1]}
    noted: dict[str, Any] = {}
    summed: dict[str, str] = {}
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
        fact = f"{who} bought a {thing} in {place} on {session + 3} {month}."
        noted[f"session_{session}_observation"] = {who: [[fact, f"D{session}:3"]]}
        summed[f"session_{session}_summary"] = f"{who} and {other} talked. {fact}"
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
    return {"sample_id": f"synthetic-{number}", "conversation": conversation, "qa": questions,
            "observation": noted, "session_summary": summed}  # fmt: skip


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
