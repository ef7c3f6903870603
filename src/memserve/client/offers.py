"""What an engine offers beyond its one required method, or `Unsupported`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

from memserve.errors import EngineFailed, MemserveError, Unsupported
from memserve.protocol import (
    AsyncEngine,
    BatchEngine,
    Completion,
    Delta,
    Embeddings,
    Engine,
    Ranking,
    Request,
    Score,
    SupportsAsyncCountTokens,
    SupportsAsyncEmbed,
    SupportsAsyncRerank,
    SupportsAsyncScore,
    SupportsAsyncStream,
    SupportsCountTokens,
    SupportsEmbed,
    SupportsRerank,
    SupportsScore,
    SupportsStream,
    SupportsTokenizer,
)


def complete(engine: Engine) -> Callable[[Request], Awaitable[Completion]]:
    """What answers one request, awaited; without it the answer is `Unsupported`."""
    if isinstance(engine, AsyncEngine):
        return engine.complete

    async def lacking(request: Request) -> Completion:
        raise _lacks(engine, "generate")

    return lacking


def generate(engine: Engine) -> Callable[[Sequence[Request]], Sequence[Completion]]:
    """What answers many requests; without it the answer is `Unsupported`."""
    if isinstance(engine, BatchEngine):
        return engine.generate

    def lacking(requests: Sequence[Request]) -> Sequence[Completion]:
        raise _lacks(engine, "generate")

    return lacking


def stream(engine: Engine) -> Callable[[Request], Iterator[Delta]]:
    """What gives an answer piece by piece."""
    if isinstance(engine, SupportsStream):
        return engine.stream
    raise _lacks(engine, "stream")


def astream(engine: Engine) -> Callable[[Request], AsyncIterator[Delta]]:
    """The same, awaited."""
    if isinstance(engine, SupportsAsyncStream):
        return engine.astream
    raise _lacks(engine, "stream")


def score(engine: Engine) -> Callable[..., Sequence[Score] | Awaitable[Sequence[Score]]]:
    """What tells log-likelihoods."""
    if isinstance(engine, SupportsAsyncScore):
        return engine.ascore
    if isinstance(engine, SupportsScore):
        return engine.score
    raise _lacks(engine, "score")


def embed(engine: Engine) -> Callable[..., Embeddings | Awaitable[Embeddings]]:
    """What makes vectors."""
    if isinstance(engine, SupportsAsyncEmbed):
        return engine.aembed
    if isinstance(engine, SupportsEmbed):
        return engine.embed
    raise _lacks(engine, "embed")


def rerank(engine: Engine) -> Callable[..., Ranking | Awaitable[Ranking]]:
    """What ranks documents."""
    if isinstance(engine, SupportsAsyncRerank):
        return engine.arerank
    if isinstance(engine, SupportsRerank):
        return engine.rerank
    raise _lacks(engine, "rerank")


def count_tokens(engine: Engine) -> Callable[..., int | Awaitable[int]]:
    """What counts a prompt's tokens."""
    if isinstance(engine, SupportsAsyncCountTokens):
        return engine.acount_tokens
    if isinstance(engine, SupportsCountTokens):
        return engine.count_tokens
    raise _lacks(engine, "count_tokens")


def tokenizer(engine: Engine) -> SupportsTokenizer:
    """What has the model's own tokenizer."""
    if isinstance(engine, SupportsTokenizer):
        return engine
    raise _lacks(engine, "encode, decode and score_text")


def failure(engine: Engine, broken: Exception) -> MemserveError:
    """What an engine raised, as one of memserve's own errors."""
    if isinstance(broken, MemserveError):
        return broken
    name = engine.capabilities.backend
    return EngineFailed(f"backend {name!r} broke: {type(broken).__name__}: {broken}")


def _lacks(engine: Engine, method: str) -> Unsupported:
    return Unsupported(engine.capabilities.backend, method)
