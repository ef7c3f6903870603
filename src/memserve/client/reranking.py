"""The Reranker that callers hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from memserve.client.handle import Handle
from memserve.client.prompt import encodable
from memserve.errors import EngineFailed, InvalidInput
from memserve.protocol import Ranking


class Reranker(Handle):
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
        if isinstance(documents, (str, bytes)) or not isinstance(documents, Iterable):
            raise InvalidInput(f"documents is a list of strings, not {type(documents).__name__}")
        texts = list(documents)
        for text in (query, *texts):
            if not isinstance(text, str):
                raise InvalidInput(f"the query and every document are strings, not {type(text).__name__}")
            encodable(text, "a text to rank")
        return texts

    def _proven(self, answer: Any, count: int) -> Ranking:
        ranking: Ranking = answer
        if len(ranking.scores) != count:
            name = self.capabilities.backend
            raise EngineFailed(f"backend {name!r} gave {len(ranking.scores)} scores to {count} documents")
        if not all(math.isfinite(score) for score in ranking.scores):
            raise EngineFailed(f"backend {self.capabilities.backend!r} gave a score that is not finite")
        return ranking
