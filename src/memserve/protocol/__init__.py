"""The values that pass between a caller and an engine, and the two sides' protocols.

A caller holds a `Generator`, `Embedder` or `Reranker` (made by `memserve.generator`, ...). A backend's
author writes an engine: one required method, `generate` for an engine that works in batches or
`complete` for one that is awaited request by request. `memserve.client` turns either into the whole of
what callers hold, so that sync, async, streaming and batch behave the same everywhere.
"""

from __future__ import annotations

from memserve.protocol.clients import Embedder, Generator, Reranker, Settings
from memserve.protocol.engines import (
    AsyncEngine,
    AttemptObserver,
    Backend,
    BatchEngine,
    BatchService,
    Engine,
    FillsMaxTokens,
    HasIdentity,
    JoinsCalls,
    RunsOnAnyLoop,
    SupportsAsyncClose,
    SupportsAsyncCountTokens,
    SupportsAsyncEmbed,
    SupportsAsyncRerank,
    SupportsAsyncScore,
    SupportsAsyncStream,
    SupportsBatchDone,
    SupportsBatches,
    SupportsClose,
    SupportsCountTokens,
    SupportsEmbed,
    SupportsGiveUp,
    SupportsInterrupt,
    SupportsPlanOptions,
    SupportsRerank,
    SupportsScore,
    SupportsStream,
    SupportsTokenizer,
    observer,
)
from memserve.protocol.values import (
    DEFAULT_MAX_TOKENS,
    DEFAULT_TEMPERATURE,
    DEFAULT_TOP_P,
    Capabilities,
    Completion,
    Delta,
    Embeddings,
    FinishReason,
    Message,
    OnError,
    Prompt,
    PromptLike,
    Ranking,
    Raw,
    Request,
    Sample,
    Score,
    ScorePrompts,
    Task,
    TokenLogprob,
    ToolCall,
    Truncate,
    Usage,
)

__all__ = [
    "DEFAULT_MAX_TOKENS", "DEFAULT_TEMPERATURE", "DEFAULT_TOP_P", "AsyncEngine", "AttemptObserver",
    "Backend", "BatchEngine", "BatchService", "Capabilities", "Completion", "Delta", "Embedder", "Embeddings",
    "Engine",
    "FillsMaxTokens", "FinishReason", "Generator", "HasIdentity", "JoinsCalls", "Message", "OnError",
    "Prompt", "PromptLike", "Ranking", "Raw", "Request", "Reranker", "RunsOnAnyLoop", "Sample", "Score",
    "ScorePrompts", "Settings", "SupportsAsyncClose", "SupportsAsyncCountTokens", "SupportsAsyncEmbed",
    "SupportsAsyncRerank", "SupportsAsyncScore", "SupportsAsyncStream", "SupportsBatchDone",
    "SupportsBatches", "SupportsClose", "SupportsCountTokens", "SupportsEmbed", "SupportsGiveUp",
    "SupportsInterrupt", "SupportsPlanOptions", "SupportsRerank", "SupportsScore", "SupportsStream",
    "SupportsTokenizer", "Task", "TokenLogprob", "ToolCall", "Truncate", "Usage", "observer",
]  # fmt: skip
