"""The Reranker that callers hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memserve.client.generation import Held
from memserve.errors import EngineFailed, InvalidInput
from memserve.protocol import Ranking

if TYPE_CHECKING:
    from collections.abc import Iterable


class Reranker(Held):
    """One cross-encoder behind one backend."""

    def rerank(self, query: str, documents: Iterable[str]) -> Ranking:
        """The relevance of each document to the query, in the order of the documents."""
        texts = self._checked(query, documents)
        return self._proven(self._driver.call("rerank", query, texts), len(texts)) if texts else Ranking(())

    async def arerank(self, query: str, documents: Iterable[str]) -> Ranking:
        """`rerank`, awaited."""
        texts = self._checked(query, documents)
        if not texts:
            return Ranking(())
        return self._proven(await self._driver.acall("rerank", query, texts), len(texts))

    def _checked(self, query: str, documents: Iterable[str]) -> list[str]:
        self._open()
        if isinstance(documents, str):
            raise InvalidInput("documents is a list of strings, not one string")
        texts = list(documents)
        if not all(isinstance(text, str) for text in (query, *texts)):
            raise InvalidInput("the query and every document are strings")
        return texts

    def _proven(self, answer: Any, count: int) -> Ranking:
        ranking: Ranking = answer
        if len(ranking.scores) != count:
            name = self.capabilities.backend
            raise EngineFailed(f"backend {name!r} gave {len(ranking.scores)} scores to {count} documents")
        return ranking
