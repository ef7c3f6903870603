"""Embeddings: batchEmbedContents, at most a hundred texts at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memserve.client.async_driver import all_or_none
from memserve.errors import Unsupported
from memserve.http import HttpClient, failure
from memserve.http.body import bad, parse
from memserve.http.chat import encode
from memserve.protocol import Capabilities, Embeddings, Usage
from memserve_gemini.ask import EmbeddingModel, path_of, roles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_PARALLEL = 16


class EmbedEngine:
    """Asks {base_url}/models/{model}:batchEmbedContents."""

    any_loop = True

    def __init__(self, client: HttpClient, model: EmbeddingModel) -> None:
        self.capabilities = Capabilities(
            backend="gemini", model=model.name, tasks=frozenset({"embed"}),
            roles=frozenset(roles() if model.roles else ()), normalize=True, dimensions=model.dimensions,
            cancel=True,
        )  # fmt: skip
        self._client = client
        self._model = model
        self._url = client.address.url(f"{path_of(model.name)}:batchEmbedContents")

    @property
    def identity(self) -> Mapping[str, str]:
        """What answers, without any secret."""
        return {"backend": "gemini", "base_url": self._client.address.shown, "model": self._model.name}

    async def aembed(self, texts: Sequence[str], *, role: str | None = None, normalize: bool | None = None,
                     dimensions: int | None = None) -> Embeddings:  # fmt: skip
        """One vector per text, in order; shortened ones are brought to length one again."""
        if normalize is False:
            raise Unsupported("gemini", "normalize=False", "the server decides; it cannot be asked not to")
        step = self._model.items
        batches = [texts[start : start + step] for start in range(0, len(texts), step)]
        gate = asyncio.Semaphore(_PARALLEL)

        async def one(batch: Sequence[str]) -> tuple[Vectors, int | None]:
            async with gate:
                return await self._ask(batch, role, dimensions)

        answers = await all_or_none([one(batch) for batch in batches])
        if len({vectors.shape[1] for vectors, _ in answers}) > 1:
            raise bad("the vectors differ in length", retries=None)
        vectors = np.concatenate([vectors for vectors, _ in answers])
        tokens = [count for _, count in answers if count is not None]
        usage = Usage(prompt_tokens=sum(tokens) if len(tokens) == len(answers) else None)
        unit = normalize or (dimensions is not None and not self._model.unit)
        return Embeddings(_unit(vectors) if unit else vectors, usage, self._model.name)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _ask(self, texts: Sequence[str], role: str | None,
                   dimensions: int | None) -> tuple[Vectors, int | None]:  # fmt: skip
        fields: dict[str, Any] = {"model": path_of(self._model.name)}
        if role is not None:
            fields["taskType"] = roles()[role]
        if dimensions is not None:
            fields["outputDimensionality"] = dimensions
        asked = [{**fields, "content": {"parts": [{"text": text}]}} for text in texts]
        call = self._client.call(self._url, encode({"requests": asked}))

        def read(words: str, headers: Mapping[str, str]) -> tuple[Vectors, int | None]:
            found = parse(words)
            if isinstance(found, dict) and "error" in found:
                raise self._client.failed(failure.read(found) or failure.Words("failed"), 200, headers)
            return read_vectors(found, len(texts), dimensions), _tokens(found)

        return await self._client.fetch(call, read)


def read_vectors(found: Any, count: int, dimensions: int | None) -> Vectors:
    """The vectors of an answer, in the order of the texts, or BadAnswer."""
    rows = found.get("embeddings") if isinstance(found, dict) else None
    if not isinstance(rows, list) or len(rows) != count:
        raise bad(f"{count} texts were sent and {len(rows) if isinstance(rows, list) else 'no'} vectors came")
    values = [row.get("values") if isinstance(row, dict) else None for row in rows]
    if not all(isinstance(value, list) and value for value in values):
        raise bad("an embedding has no values")
    widths = {len(value) for value in values if value}
    if len(widths) != 1 or (dimensions is not None and widths != {dimensions}):
        raise bad(f"the vectors have {sorted(widths)} dimensions, not {dimensions or 'one length'}")
    if not all(type(number) in (int, float) for value in values for number in value or ()):
        raise bad("an embedding is not a list of numbers")
    vectors = np.asarray(values, dtype=np.float64).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise bad("an embedding holds NaN or infinity")
    return vectors


def _tokens(found: Any) -> int | None:
    usage = found.get("usageMetadata")
    tokens = usage.get("promptTokenCount") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) else None


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
