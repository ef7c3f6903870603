"""LoCoMo's own measures: F1 over Porter stems by category, recall; ROUGE and BERTScore by their packages."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from functools import cache
from re import sub
from typing import Any

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
    given, gold = Counter(stems(told)), Counter(stems(wanted))
    same = (given & gold).total()
    if not same:
        return 0.0
    precision, recall = same / given.total(), same / gold.total()
    return 2 * precision * recall / (precision + recall)


def recall(question: Question, shown: Sequence[str]) -> float:
    """The share of the evidence among what was shown, turns or sessions; 1 where there is no evidence."""
    if not question.evidence:
        return 1.0
    if shown and shown[0].startswith("S"):
        sessions = {name[1:] for name in shown}
        found = [name.split(":")[0][1:] in sessions for name in question.evidence]
    else:
        found = [name in shown for name in question.evidence]
    return sum(found) / len(found)


def rouge(told: str, wanted: str) -> float:
    """ROUGE-1's F over stems, by the package rouge."""
    from rouge import Rouge

    given, gold = " ".join(stems(told)), " ".join(stems(wanted))
    try:
        return float(Rouge().get_scores(given, gold, avg=True)["rouge-1"]["f"])
    except ValueError:  # an empty text
        return 0.0


def bertscore(told: str, wanted: str) -> float:
    """BERTScore's F1, rescaled and not below 0, by the package bert-score."""
    from bert_score import score

    *_, found = score(
        [" ".join(words(told))], [" ".join(words(wanted))], lang="en", rescale_with_baseline=True
    )
    return max(0.0, float(found[0]))


MORE = {"rouge": rouge, "bertscore": bertscore}


def words(text: str) -> list[str]:
    """Without commas, case, punctuation and articles, in the benchmark's order of steps."""
    bare = text.replace(",", "").lower().translate(_PUNCTUATION)
    return sub(r"\b(a|an|the|and)\b", " ", bare).split()


def stems(text: str) -> list[str]:
    """NLTK's Porter stemmer in its default mode, which is not the algorithm of 1980."""
    stem = _stemmer().stem
    return [stem(word) for word in words(text)]


@cache
def _stemmer() -> Any:
    try:
        from nltk.stem import PorterStemmer
    except ImportError:
        raise SystemExit("LoCoMo's F1 needs NLTK's stemmer: pip install nltk") from None
    return PorterStemmer()
