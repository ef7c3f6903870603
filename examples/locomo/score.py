"""LoCoMo's own measure: F1 over normalized words, by category; without its Porter stemmer."""

from __future__ import annotations

import re
import string
from collections import Counter

from examples.locomo.data import Question

_PUNCTUATION = str.maketrans("", "", string.punctuation)
REFUSALS = ("no information available", "not mentioned")


def points(question: Question, told: str) -> float:
    """From 0 to 1. Adversarial questions want a refusal, multi-hop ones every part of a list."""
    if question.category == 5:
        return float(any(refusal in told.lower() for refusal in REFUSALS))
    if question.category == 1:
        parts = [part.strip() for part in told.split(",")]
        wanted = [part.strip() for part in question.answer.split(",")]
        return sum(max(f1(part, want) for part in parts) for want in wanted) / len(wanted)
    return f1(told, question.answer)


def f1(told: str, wanted: str) -> float:
    given, gold = Counter(normalized(told)), Counter(normalized(wanted))
    same = (given & gold).total()
    if not same:
        return 0.0
    precision, recall = same / given.total(), same / gold.total()
    return 2 * precision * recall / (precision + recall)


def normalized(text: str) -> list[str]:
    return re.sub(r"\b(a|an|the|and)\b", " ", text.lower().translate(_PUNCTUATION)).split()
