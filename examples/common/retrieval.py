"""Two retrievers over small histories: BM25 by words, and an embedder by meaning. The best first."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from memserve.protocol import Embedder

K1, B = 1.5, 0.75
BATCH = 256


class Retriever(Protocol):
    def rank(self, query: str, documents: Sequence[str]) -> list[int]:
        """Places of the documents, the most relevant first."""
        ...


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class Bm25:
    """Okapi BM25; a history has tens of sessions, so nothing is indexed ahead."""

    def rank(self, query: str, documents: Sequence[str]) -> list[int]:
        counts = [Counter(words(document)) for document in documents]
        usual = sum(count.total() for count in counts) / max(1, len(counts)) or 1.0
        scores = [0.0] * len(counts)
        for term in words(query):
            holders = sum(term in count for count in counts)
            weight = math.log(1 + (len(counts) - holders + 0.5) / (holders + 0.5))
            for place, count in enumerate(counts):
                often = count[term]
                scores[place] += (
                    weight * often * (K1 + 1) / (often + K1 * (1 - B + B * count.total() / usual))
                )
        return sorted(range(len(scores)), key=lambda place: -scores[place])


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
