"""The base of an embedding engine behind HTTP: batches side by side, answers checked, vectors in order."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from memserve.client.async_driver import all_or_none
from memserve.errors import Unsupported
from memserve.http import Call, HttpClient, failure
from memserve.http.body import bad, parse
from memserve.protocol import Capabilities, Embeddings, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

_PARALLEL = 16


class VectorEngine(ABC):
    """An embedding engine that sends at most `items` texts in one call."""

    any_loop = True
    items = 1

    def __init__(self, client: HttpClient, capabilities: Capabilities) -> None:
        self._client = client
        self.capabilities = capabilities

    @abstractmethod
    def write(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
              dimensions: int | None) -> Call:  # fmt: skip
        """The call that asks for some texts' vectors."""

    @abstractmethod
    def read(self, found: Any, headers: Mapping[str, str]) -> tuple[Any, Any]:
        """The rows of an answer and the tokens that it counts; whatever else stands there for either."""

    def scaled(self, normalize: bool | None, dimensions: int | None) -> bool:
        """Whether the vectors are to be brought to length one here."""
        return normalize is True

    @property
    def identity(self) -> Mapping[str, str]:
        """What answers, without any secret."""
        known = self.capabilities
        return {"backend": known.backend, "base_url": self._client.address.shown, "model": known.model or ""}

    async def aembed(self, texts: Sequence[str], *, role: str | None = None, normalize: bool | None = None,
                     dimensions: int | None = None) -> Embeddings:  # fmt: skip
        """One vector per text, in order."""
        import numpy as np

        batches = [texts[start : start + self.items] for start in range(0, len(texts), self.items)]
        calls = [self.write(one, role=role, normalize=normalize, dimensions=dimensions) for one in batches]
        gate = asyncio.Semaphore(_PARALLEL)

        async def ask(call: Call, count: int) -> tuple[Vectors, Any]:
            def read(words: str, headers: Mapping[str, str]) -> tuple[Vectors, Any]:
                return self._checked(words, headers, count, dimensions)

            async with gate:
                return await self._client.fetch(call, read)

        sizes = zip(calls, batches, strict=True)
        answers = await all_or_none([ask(call, len(batch)) for call, batch in sizes])
        if len({found.shape[1] for found, _ in answers}) > 1:
            raise bad("the vectors differ in length", retries=None)
        vectors = np.concatenate([found for found, _ in answers])
        tokens = [count for _, count in answers if type(count) is int]
        usage = Usage(prompt_tokens=sum(tokens) if len(tokens) == len(answers) else None)
        if self.scaled(normalize, dimensions):
            vectors = unit(vectors)
        return Embeddings(vectors, usage, self.capabilities.model)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _checked(self, words: str, headers: Mapping[str, str], count: int,
                 dimensions: int | None) -> tuple[Vectors, Any]:  # fmt: skip
        found = parse(words)
        if isinstance(found, dict) and "error" in found:
            raise self._client.failed(failure.read(found) or failure.Words("failed"), 200, headers)
        rows, tokens = self.read(found, headers)
        return vectors_of(rows, count, dimensions), tokens


def unit(vectors: Vectors) -> Vectors:
    """The vectors, brought to length one."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def refuse_bare(backend: str, normalize: bool | None) -> None:
    """Raise where a server brings its vectors to length one and cannot be asked not to."""
    if normalize is False:
        raise Unsupported(backend, "normalize=False", "the server decides; it cannot be asked not to")


def vectors_of(rows: Any, count: int, dimensions: int | None) -> Vectors:
    """The rows as vectors, or BadAnswer."""
    import numpy as np

    if not isinstance(rows, list) or len(rows) != count:
        raise bad(f"{count} texts were sent and {len(rows) if isinstance(rows, list) else 'no'} vectors came")
    if not all(isinstance(row, list) and row for row in rows):
        raise bad("an embedding has no values")
    widths = {len(row) for row in rows}
    if len(widths) != 1 or (dimensions is not None and widths != {dimensions}):
        raise bad(f"the vectors have {sorted(widths)} dimensions, not {dimensions or 'one length'}")
    if not all(type(number) in (int, float) for row in rows for number in row):
        raise bad("an embedding is not a list of numbers")
    with np.errstate(over="ignore"):
        vectors = np.asarray(rows, dtype=np.float64).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise bad("an embedding holds NaN or infinity")
    return vectors
