"""The Reranker that callers hold."""

import math
from collections.abc import Iterable
from functools import partial

from memserve.client import offers
from memserve.client.handle import Handle
from memserve.client.prompts import encodable, strings
from memserve.errors import EngineFailed, InvalidInput
from memserve.protocol import Ranking


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
