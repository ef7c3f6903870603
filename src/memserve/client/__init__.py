"""What callers hold: sync, async, streaming and batch from the one method that an engine's author wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memserve.protocol import Embedder, Generator, Reranker


def generator(model_or_plan: Any = None, *, backend: str | None = None, **options: Any) -> Generator:
    """Open a model for text generation."""
    raise NotImplementedError


def embedder(model: str | None = None, *, backend: str | None = None, **options: Any) -> Embedder:
    """Open a model for embeddings."""
    raise NotImplementedError


def reranker(model: str | None = None, *, backend: str | None = None, **options: Any) -> Reranker:
    """Open a cross-encoder."""
    raise NotImplementedError
