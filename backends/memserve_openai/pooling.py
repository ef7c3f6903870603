"""Embeddings, batched by tokens and in order, and reranking: vLLM's, SGLang's, TEI's, llama.cpp's scores."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from memserve.client.async_driver import all_or_none
from memserve.client.vectors import refuse_bare, unit
from memserve.errors import BadRequest, ContextOverflow, Unsupported
from memserve.http import HttpClient
from memserve.http.body import bad, parse
from memserve.http.chat import answer, encode, failure_in
from memserve.http.chat.answer import usage
from memserve.protocol import Capabilities, Embeddings, Ranking, Usage
from memserve_openai.dialect import Dialect

if TYPE_CHECKING:
    from numpy.typing import NDArray


def by_tokens(texts: Sequence[str], *, items: int, tokens: int,
              count: Callable[[str], int]) -> list[list[int]]:  # fmt: skip
    """Positions of the texts, longest first, in batches of at most so many items and tokens.

    A single text above the limit makes a batch of its own: refusing it is the engine's affair.
    """
    sizes = [count(text) for text in texts]
    batches: list[list[int]] = []
    left = 0
    for position in sorted(range(len(texts)), key=lambda i: -sizes[i]):
        if not batches or len(batches[-1]) >= items or sizes[position] > left:
            batches.append([])
            left = tokens
        batches[-1].append(position)
        left -= sizes[position]
    return batches


_BYTES_PER_TOKEN = 2
"""Fewer bytes a token than any tokenizer needs for real text, so that a batch is never too large."""
_PARALLEL = 16
_TOO_LARGE = 413


class EmbedEngine:
    """Asks {base_url}/embeddings."""

    any_loop = True

    def __init__(self, client: HttpClient, dialect: Dialect, known: Capabilities,
                 prompts: Mapping[str, str]) -> None:  # fmt: skip
        self.capabilities = replace(known, roles=frozenset(prompts))
        self._client = client
        self._dialect = dialect
        self._model = known.model or ""
        self._prompts = dict(prompts)
        self._url = client.address.url("embeddings")

    @property
    def identity(self) -> Mapping[str, str]:
        """What answers, without any secret."""
        own = {"backend": "openai", "base_url": self._client.address.shown, "model": self._model}
        return {**own, **{f"prompt {role}": words for role, words in self._prompts.items()}}

    async def aembed(self, texts: Sequence[str], *, role: str | None = None, normalize: bool | None = None,
                     dimensions: int | None = None) -> Embeddings:  # fmt: skip
        """One vector per text, in order."""
        fields = self._fields(normalize, dimensions)
        words = [self._prompts[role] + text for text in texts] if role else list(texts)
        batches = by_tokens(words, items=self._dialect.items, tokens=self._dialect.tokens, count=_tokens)
        gate = asyncio.Semaphore(_PARALLEL)

        async def one(batch: list[int]) -> tuple[NDArray[np.float32], Usage]:
            async with gate:
                return await self._split([words[i] for i in batch], fields)

        answers = await all_or_none([one(batch) for batch in batches])
        order = np.argsort([i for batch in batches for i in batch], kind="stable")
        widths = {vectors.shape[1] for vectors, _ in answers}
        if len(widths) > 1:
            raise bad(f"the vectors differ in length: {sorted(widths)}", retries=None)
        vectors = np.concatenate([vectors for vectors, _ in answers])[order]
        return Embeddings(unit(vectors) if normalize else vectors, _sum(u for _, u in answers), self._model)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _fields(self, normalize: bool | None, dimensions: int | None) -> dict[str, Any]:
        fields: dict[str, Any] = {"encoding_format": "float"}
        if dimensions is not None:
            fields["dimensions"] = dimensions
        if self._dialect.bare_vectors is None:
            refuse_bare("openai", normalize)
        elif normalize is False:
            fields.update(self._dialect.bare_vectors)
        return fields

    async def _split(self, texts: list[str], fields: dict[str, Any]) -> tuple[NDArray[np.float32], Usage]:
        """Ask for a batch; one that the server finds too large is cut in two."""
        payload = {"model": self._model, "input": texts, **fields}
        call = self._client.call(self._url, encode(payload))
        try:
            return await self._client.fetch(call, lambda words, headers: self._read(words, headers, payload))
        except (BadRequest, ContextOverflow) as error:
            if error.status != _TOO_LARGE or len(texts) == 1:
                raise
        middle = len(texts) // 2
        head, head_usage = await self._split(texts[:middle], fields)
        tail, tail_usage = await self._split(texts[middle:], fields)
        return np.concatenate([head, tail]), _sum([head_usage, tail_usage])

    def _read(self, words: str, headers: Mapping[str, str],
              payload: Mapping[str, Any]) -> tuple[NDArray[np.float32], Usage]:  # fmt: skip
        found = parse(words)
        failed = failure_in(found) if not (isinstance(found, dict) and found.get("data")) else None
        if failed is not None:
            raise self._client.failed(failed, 200, headers)
        vectors = read_vectors(found, len(payload["input"]))
        asked = payload.get("dimensions")
        if asked is not None and vectors.shape[1] != asked:
            raise bad(f"{asked} dimensions were asked for and {vectors.shape[1]} came", retries=None)
        return vectors, Usage(prompt_tokens=answer.usage(found.get("usage")).prompt_tokens)


def read_vectors(found: Any, count: int) -> NDArray[np.float32]:
    """The vectors of an answer in the order of the texts, or BadAnswer."""
    data = found.get("data") if isinstance(found, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise bad("the answer has no list of embeddings")
    if len(data) != count:
        raise bad(f"{count} texts were sent and {len(data)} embeddings came")
    indexes = [item.get("index", position) for position, item in enumerate(data)]
    if sorted(i for i in indexes if isinstance(i, int)) != list(range(count)):
        raise bad("the embeddings are numbered wrongly")
    vectors = [
        _vector(item.get("embedding")) for _, item in sorted(zip(indexes, data, strict=True), key=_first)
    ]
    lengths = {len(vector) for vector in vectors}
    if len(lengths) != 1 or lengths == {0}:
        raise bad(f"the embeddings differ in length or are empty: {sorted(lengths)}")
    stacked = np.stack(vectors)
    if not np.isfinite(stacked).all():
        raise bad("an embedding holds NaN or infinity")
    return stacked


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _vector(value: Any) -> NDArray[np.float32]:
    """Floats, or the base64 of little-endian float32, whichever the server prefers."""
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise bad("an embedding is neither a list of numbers nor base64") from None
        if len(raw) % 4:
            raise bad("an embedding in base64 is cut inside a number")
        return np.frombuffer(raw, dtype="<f4").astype(np.float32)
    if not isinstance(value, list) or not all(type(number) in (float, int) for number in value):
        raise bad("an embedding is not a list of numbers")
    try:
        with np.errstate(over="ignore"):
            return np.asarray(value, dtype=np.float64).astype(np.float32)
    except OverflowError:
        raise bad("an embedding holds an integer beyond every float") from None


def _tokens(text: str) -> int:
    return len(text.encode()) // _BYTES_PER_TOKEN + 2


def _sum(usages: Any) -> Usage:
    counts = [usage.prompt_tokens for usage in usages]
    return Usage(prompt_tokens=None if None in counts else sum(counts))


class RerankEngine:
    """Asks the dialect's rerank route."""

    any_loop = True

    def __init__(self, client: HttpClient, dialect: Dialect, known: Capabilities) -> None:
        if dialect.rerank is None:
            raise Unsupported(
                "openai", "the task rerank", f"the dialect {dialect.name!r} has no route for it"
            )
        self.capabilities = known
        self._client = client
        self._dialect = dialect
        self._model = known.model or ""
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
