"""What a caller holds: made by `memserve.generator`, `memserve.embedder` and `memserve.reranker`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol, overload

from memserve.protocol.capabilities import Capabilities
from memserve.protocol.settings import Settings
from memserve.protocol.values import (
    Completion,
    Delta,
    Embeddings,
    OnError,
    Prompt,
    PromptLike,
    Ranking,
    Score,
    ScorePrompts,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Generator(Protocol):
    """One model behind one backend. A context manager."""

    @property
    def capabilities(self) -> Capabilities: ...
    @overload
    def generate(self, prompt: PromptLike, *, on_error: OnError = ...,  # type: ignore[overload-overlap]
                 **settings: Unpack[Settings]) -> Completion: ...  # fmt: skip
    @overload
    def generate(self, prompt: Iterable[PromptLike], *, on_error: OnError = ...,
                 **settings: Unpack[Settings]) -> list[Completion]: ...  # fmt: skip
    @overload
    async def agenerate(self, prompt: PromptLike, *, on_error: OnError = ...,  # type: ignore[overload-overlap]
                        **settings: Unpack[Settings]) -> Completion: ...  # fmt: skip
    @overload
    async def agenerate(self, prompt: Iterable[PromptLike], *, on_error: OnError = ...,
                        **settings: Unpack[Settings]) -> list[Completion]: ...  # fmt: skip
    def stream(self, prompt: PromptLike, **settings: Unpack[Settings]) -> Iterator[Delta]: ...
    def astream(self, prompt: PromptLike, **settings: Unpack[Settings]) -> AsyncIterator[Delta]: ...
    def score(self, pairs: Iterable[ScorePrompts]) -> list[Score]: ...
    def score_text(self, texts: Iterable[str], *, window: int | None = ...) -> list[Score]: ...
    def count_tokens(self, text: Prompt) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def close(self) -> None: ...


class Embedder(Protocol):
    """One embedding model behind one backend. A context manager."""

    @property
    def capabilities(self) -> Capabilities: ...
    def embed(self, texts: Iterable[str], *, role: str | None = None, normalize: bool | None = None,
              dimensions: int | None = None) -> Embeddings: ...  # fmt: skip
    def close(self) -> None: ...


class Reranker(Protocol):
    """One cross-encoder behind one backend. A context manager."""

    @property
    def capabilities(self) -> Capabilities: ...
    def rerank(self, query: str, documents: Iterable[str]) -> Ranking: ...
    def close(self) -> None: ...
