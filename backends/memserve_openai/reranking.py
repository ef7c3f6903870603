"""Reranking: the scores of vLLM, SGLang, TEI and llama.cpp in one shape."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from memserve.errors import Unsupported
from memserve.http import HttpClient
from memserve.http.body import bad, parse
from memserve.http.chat import encode, failure_in
from memserve.http.chat.field import usage
from memserve.protocol import Capabilities, Ranking
from memserve_openai.dialect import Dialect, capabilities


class RerankEngine:
    """Asks the dialect's rerank route."""

    any_loop = True

    def __init__(self, client: HttpClient, dialect: Dialect, model: str) -> None:
        if dialect.rerank is None:
            raise Unsupported(
                "openai", "the task rerank", f"the dialect {dialect.name!r} has no route for it"
            )
        self.capabilities: Capabilities = capabilities(dialect, model, "rerank")
        self._client = client
        self._dialect = dialect
        self._model = model
        self._url = client.address.url(dialect.rerank)

    async def arerank(self, query: str, documents: Sequence[str]) -> Ranking:
        """One score per document, in the order of the documents."""
        texts = {self._dialect.rerank_texts: list(documents)}
        call = self._client.call(self._url, encode({"model": self._model, "query": query, **texts}))
        return await self._client.fetch(
            call, lambda words, headers: self._read(words, headers, len(documents))
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _read(self, words: str, headers: Mapping[str, str], count: int) -> Ranking:
        found = parse(words)
        rows = found.get("results") or found.get("data") if isinstance(found, dict) else found
        failed = failure_in(found) if not rows else None
        if failed is not None:
            raise self._client.failed(failed, 200, headers)
        total = usage(found.get("usage")) if isinstance(found, dict) else usage(None)
        return Ranking(_scores(rows, count), total, self._model)


def _scores(rows: Any, count: int) -> tuple[float, ...]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise bad("the answer has no list of scores")
    scores = {row.get("index"): row.get("relevance_score", row.get("score")) for row in rows}
    if len(rows) != count or set(scores) != set(range(count)):
        raise bad(f"{count} documents were sent and {len(rows)} scores came, or they are numbered wrongly")
    if not all(type(score) in (int, float) and math.isfinite(score) for score in scores.values()):
        raise bad("a score is not a number")
    return tuple(float(scores[position]) for position in range(count))
