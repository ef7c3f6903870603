"""Retrievers over small histories: BM25 by words, an embedder by meaning, and chance. The best first."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from memserve.protocol import Embedder

K1, B, LEAST = 1.5, 0.75, 0.25
BATCH = 256


class Retriever(Protocol):
    def rank(self, query: str, documents: Sequence[str]) -> list[int]:
        """Places of the documents, the most relevant first."""
        ...


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def blanks(text: str) -> list[str]:
    return text.split(" ")


class Bm25:
    """Okapi BM25 as the package rank_bm25 (0.2.2) computes it.

    A word that most documents hold weighs a quarter of the mean weight, in place of a negative one.
    """

    def __init__(self, split: Callable[[str], list[str]]) -> None:
        self._split = split

    def rank(self, query: str, documents: Sequence[str]) -> list[int]:
        if not documents:
            return []
        counts = [Counter(self._split(document)) for document in documents]
        lengths = np.array([count.total() for count in counts])
        weights = _weights(counts)
        scores = np.zeros(len(counts))
        for term in self._split(query):
            often = np.array([count[term] for count in counts])
            longer = 1 - B + B * lengths / (lengths.sum() / len(counts))
            scores += (weights.get(term) or 0) * (often * (K1 + 1) / (often + K1 * longer))
        return [int(place) for place in np.argsort(scores)[::-1]]


def _weights(counts: Sequence[Counter[str]]) -> dict[str, float]:
    """Each word's weight; in the order in which the words appear, since the sum depends on it."""
    holders: Counter[str] = Counter()
    for count in counts:
        holders.update(dict.fromkeys(count, 1))
    found = {word: float(np.log(len(counts) - n + 0.5) - np.log(n + 0.5)) for word, n in holders.items()}
    total = 0.0
    for weight in found.values():
        total += weight
    least = LEAST * total / len(found)
    return {word: least if weight < 0 else weight for word, weight in found.items()}


class Dense:
    """Cosine similarity of embeddings; every text is embedded once, however many questions share it."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[tuple[str | None, str], NDArray[np.float32]] = {}

    def rank(self, query: str, documents: Sequence[str]) -> list[int]:
        (asked,) = self._vectors([query], "query")
        near = [float(vector @ asked) for vector in self._vectors(documents, "document")]
        return sorted(range(len(near)), key=lambda place: -near[place])

    def _vectors(self, texts: Sequence[str], role: str) -> list[NDArray[np.float32]]:
        known = role if role in self._embedder.capabilities.roles else None
        missing = [text for text in dict.fromkeys(texts) if (known, text) not in self._known]
        for start in range(0, len(missing), BATCH):
            part = missing[start : start + BATCH]
            for text, vector in zip(part, self._embedder.embed(part, role=known).vectors, strict=True):
                self._known[known, text] = vector / (float((vector @ vector) ** 0.5) or 1.0)
        return [self._known[known, text] for text in texts]
