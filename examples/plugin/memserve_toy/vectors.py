"""The toy's embedding and reranking half: words are hashed into a vector."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from memserve.errors import InvalidInput
from memserve.protocol import Capabilities, Embeddings, Ranking, Usage

DIMENSIONS = 64
_PROMPTS = {"query": "search for ", "document": "a text about "}


def _vector(text: str) -> np.ndarray:
    vector = np.full(DIMENSIONS, 0.01, dtype=np.float32)
    for word in text.split():
        vector[zlib.crc32(word.encode()) % DIMENSIONS] += 1.0
    return vector


class ToyEmbedder:
    """Satisfies memserve's embed and rerank protocols."""

    def __init__(self) -> None:
        self.capabilities = Capabilities(
            backend="toy", engine="toy 1.0", device="cpu", tasks=frozenset({"embed", "rerank"}),
            usage=True, roles=frozenset(_PROMPTS), normalize=True, dimensions=True, deterministic=True,
        )  # fmt: skip

    def embed(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
              dimensions: int | None) -> Embeddings:  # fmt: skip
        """One row a text; cut to `dimensions` and normalized afterwards."""
        if dimensions is not None and not 0 < dimensions <= DIMENSIONS:
            raise InvalidInput(f"dimensions={dimensions}: this model has {DIMENSIONS}")
        prompt = _PROMPTS.get(role or "", "")
        rows = [_vector(prompt + text)[:dimensions] for text in texts]
        vectors = np.stack(rows) if rows else np.zeros((0, dimensions or DIMENSIONS), dtype=np.float32)
        if normalize is not False:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return Embeddings(vectors, Usage(prompt_tokens=sum(len((prompt + t).encode()) for t in texts)))

    def rerank(self, query: str, documents: Sequence[str]) -> Ranking:
        """How many words a document shares with the query."""
        wanted = set(query.lower().split())
        return Ranking(tuple(float(len(wanted & set(d.lower().split()))) for d in documents))

    def close(self) -> None:
        """Nothing is held."""
