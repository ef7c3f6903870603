"""The Embedder and the Reranker that callers hold."""

import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from memserve.client import offers
from memserve.client.handle import Handle
from memserve.client.prompts import encodable, strings
from memserve.errors import EngineFailed, InvalidInput, Unsupported
from memserve.protocol import Embeddings, Ranking, Usage


class Embedder(Handle):
    """One embedding model behind one backend."""

    def embed(self, texts: Iterable[str], *, role: str | None = None, normalize: bool | None = None,
              dimensions: int | None = None) -> Embeddings:  # fmt: skip
        """One vector per text, in order; no text gives no vector."""
        checked = self._checked(texts, role, normalize, dimensions)
        if not checked:
            return self._none(dimensions)
        work = self._work(checked, role, normalize, dimensions)
        return self._proven(self._driver.call(work), len(checked), dimensions)

    async def aembed(self, texts: Iterable[str], *, role: str | None = None, normalize: bool | None = None,
                     dimensions: int | None = None) -> Embeddings:  # fmt: skip
        """`embed`, awaited."""
        checked = self._checked(texts, role, normalize, dimensions)
        if not checked:
            return self._none(dimensions)
        work = self._work(checked, role, normalize, dimensions)
        return self._proven(await self._driver.acall(work), len(checked), dimensions)

    def _work(self, texts: list[str], role: str | None, normalize: bool | None,
              dimensions: int | None) -> Callable[[], Embeddings | Awaitable[Embeddings]]:  # fmt: skip
        named = {"role": role, "normalize": normalize, "dimensions": dimensions}
        return partial(offers.embed(self._engine), texts, **named)

    def _checked(self, texts: Iterable[str], role: str | None, normalize: bool | None,
                 dimensions: int | None) -> list[str]:  # fmt: skip
        self._check_open()
        listed = [texts] if isinstance(texts, str) else texts
        words = strings(listed, "embed takes a list of strings", "text")
        known = self.capabilities
        if role is not None and role not in known.roles:
            roles = ", ".join(sorted(known.roles)) or "none"
            raise Unsupported(known.backend, f"role={role!r}", f"known roles: {roles}")
        if normalize not in (None, True, False):
            raise InvalidInput(f"normalize is True, False or None, not {normalize!r}")
        if normalize is not None and not known.normalize:
            raise Unsupported(known.backend, "normalize")
        self._dimensions(dimensions)
        return words

    def _dimensions(self, dimensions: int | None) -> None:
        if dimensions is None:
            return
        if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1:
            raise InvalidInput(f"dimensions is a whole number from 1, not {dimensions!r}")
        if not self.capabilities.dimensions:
            raise Unsupported(self.capabilities.backend, "dimensions")

    def _none(self, dimensions: int | None) -> Embeddings:
        import numpy as np

        return Embeddings(
            np.empty((0, dimensions or 0), np.float32), Usage(prompt_tokens=0), self.capabilities.model
        )

    def _proven(self, answer: Embeddings, count: int, dimensions: int | None) -> Embeddings:
        import numpy as np

        vectors = answer.vectors
        backend = self.capabilities.backend
        if vectors.ndim != 2 or len(vectors) != count or (dimensions and vectors.shape[1] != dimensions):
            asked = f"{count} x {dimensions or 'd'}"
            raise EngineFailed(f"backend {backend!r} gave vectors of shape {vectors.shape}, not {asked}")
        if not np.isfinite(vectors).all():
            raise EngineFailed(f"backend {backend!r} gave a vector that is not finite")
        return answer


class Reranker(Handle):
    """One cross-encoder behind one backend."""

    def rerank(self, query: str, documents: Iterable[str]) -> Ranking:
        """The relevance of each document to the query, in the order of the documents."""
        texts = self._checked(query, documents)
        if not texts:
            return Ranking(())
        work = partial(offers.rerank(self._engine), query, texts)
        return self._proven(self._driver.call(work), len(texts))

    async def arerank(self, query: str, documents: Iterable[str]) -> Ranking:
        """`rerank`, awaited."""
        texts = self._checked(query, documents)
        if not texts:
            return Ranking(())
        work = partial(offers.rerank(self._engine), query, texts)
        return self._proven(await self._driver.acall(work), len(texts))

    def _checked(self, query: str, documents: Iterable[str]) -> list[str]:
        self._check_open()
        if not isinstance(query, str):
            raise InvalidInput(f"the query is a string, not {type(query).__name__}")
        encodable(query, "the query")
        return strings(documents, "documents is a list of strings", "document")

    def _proven(self, ranking: Ranking, count: int) -> Ranking:
        if len(ranking.scores) != count:
            name = self.capabilities.backend
            raise EngineFailed(f"backend {name!r} gave {len(ranking.scores)} scores to {count} documents")
        if not all(math.isfinite(score) for score in ranking.scores):
            raise EngineFailed(f"backend {self.capabilities.backend!r} gave a score that is not finite")
        return ranking
