"""The values that pass between a caller and an engine, and the two sides' protocols.

A caller holds a `Generator`, `Embedder` or `Reranker` (made by `memserve.generator`, ...). A backend's
author writes an engine: one required method, `generate` for an engine that works in batches or
`complete` for one that is awaited request by request. `memserve.client` turns either into the whole of
what callers hold, so that sync, async, streaming and batch behave the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from memserve.errors import MemserveError

FinishReason: TypeAlias = Literal["stop", "length", "content_filter", "tool_calls"]
Truncate: TypeAlias = Literal["refuse", "left", "middle"]
Task: TypeAlias = Literal["generate", "embed", "rerank"]

DEFAULT_MAX_TOKENS = 512
DEFAULT_TEMPERATURE = 0.0
DEFAULT_TOP_P = 1.0


@dataclass(frozen=True)
class Raw:
    """Text without the chat template, tokenized as the checkpoint's own tokenizer does for plain text.

    Exactly one BOS: added where the tokenizer adds one, and never doubled when the text brings its own.
    Token ids, in contrast, go to the model exactly as they stand.
    """

    text: str


Message: TypeAlias = "Mapping[str, Any]"
Prompt: TypeAlias = "str | Raw | Sequence[Message] | Sequence[int]"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One generation. `None` means that the caller left the choice to memserve's defaults."""

    prompt: Prompt
    id: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    logprobs: int | None = None
    schema: Mapping[str, Any] | None = None
    regex: str | None = None
    choices: tuple[str, ...] | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    truncate: Truncate = "refuse"
    thinking: bool | int | None = None
    """None: as the model does unasked. A number: at most so many tokens of thought, besides `max_tokens`."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the model's chat template."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Settings of one provider only, spelled with its prefix: {"openai_service_tier": "flex"}."""


@dataclass(frozen=True)
class Usage:
    """Tokens as the engine counted them, without padding. None: the engine did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    """Of the completion's, those of the thought before the answer."""


@dataclass(frozen=True)
class TokenLogprob:
    """One generated token with its natural-log probability and its strongest rivals."""

    token: str
    logprob: float | None
    """None: the server sent no number (NaN); -9999.0 is the floor for "impossible"."""
    token_id: int | None = None
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ToolCall:
    """A call that the model asks for. `arguments` is the JSON text as it was sent."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Sample:
    """One of the n answers to one request."""

    text: str | None
    finish_reason: FinishReason | None = None
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    refusal: str | None = None
    """The model's own words where it refused to answer; `text` is None then."""


@dataclass(frozen=True)
class Completion:
    """The answer to one request; with n > 1 its own fields are those of the first sample."""

    text: str | None
    finish_reason: FinishReason | None = None
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    refusal: str | None = None
    usage: Usage = Usage()
    samples: tuple[Sample, ...] = ()
    model: str | None = None
    request_id: str | None = None
    error: MemserveError | None = None


@dataclass(frozen=True)
class Delta:
    """A piece of a streamed answer. `usage` comes once, with the last piece, where it is known."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """Whole calls, with the last piece."""


@dataclass(frozen=True)
class Score:
    """The log-likelihood of a continuation after its context; `greedy`: argmax would have said the same."""

    logprob: float
    tokens: int
    greedy: bool | None = None


@dataclass(frozen=True)
class Embeddings:
    """Vectors in the order of the texts: float32, [n, d]."""

    vectors: NDArray[np.float32]
    usage: Usage = Usage()
    model: str | None = None


@dataclass(frozen=True)
class Ranking:
    """Relevance of each document to the query, in the order of the documents."""

    scores: tuple[float, ...]
    usage: Usage = Usage()
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a backend can do. Calling code, the docs' matrix and the conformance suite read this one object.

    A field that is False (or None) means: refused before any work, with `Unsupported`.
    """

    backend: str
    engine: str | None = None
    """Engine and version as found, "vllm 0.32.0"."""
    model: str | None = None
    device: str | None = None
    tasks: frozenset[Task] = frozenset({"generate"})
    context: int | None = None
    """The largest prompt + answer in tokens; None: not known before a call."""
    # what a prompt may be
    chat: bool = False
    raw: bool = False
    token_ids: bool = False
    images: bool = False
    tools: bool = False
    # settings that are honoured
    temperature: bool = False
    max_temperature: float | None = None
    """The hottest that is taken; None: no limit is known."""
    top_p: bool = False
    max_tokens: bool = False
    top_k: bool = False
    min_p: bool = False
    seed: bool = False
    stop: bool = False
    max_stop: int | None = None
    n: bool = False
    max_n: int | None = None
    logprobs: int = 0
    """The most alternatives per token that can be asked for; 0: none at all."""
    score: bool = False
    schema: bool = False
    regex: bool = False
    choices: bool = False
    truncate: bool = False
    thinking: frozenset[str] = frozenset()
    """What `thinking` may ask for: "on", "off", "budget"."""
    template: bool = False
    """Variables of the chat template are passed on."""
    stream: bool = False
    extras: frozenset[str] = frozenset()
    # what an answer carries
    returns_token_ids: bool = False
    usage: bool = False
    deterministic: bool = False
    """Greedy answers repeat to the token, alone or in company."""
    count_tokens: bool = False
    cancel: bool = False
    batches: bool = False
    """A local engine: a long list in one call is much faster than many calls (`memserve.run` feeds it so)."""
    # embedding and reranking
    roles: frozenset[str] = frozenset()
    normalize: bool = False
    dimensions: bool = False
    """Shorter vectors may be asked for."""
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------- what an author writes


@runtime_checkable
class BatchEngine(Protocol):
    """An engine in this process: many requests in, as many answers out, in their order."""

    capabilities: Capabilities

    def generate(self, requests: Sequence[Request]) -> Sequence[Completion]:
        """Answer every request; a request that fails alone comes back with its `error` set."""
        ...


@runtime_checkable
class AsyncEngine(Protocol):
    """An engine behind a wire: one request, awaited; the caller decides how many at once."""

    capabilities: Capabilities

    async def complete(self, request: Request) -> Completion:
        """Answer one request or raise."""
        ...


# What an engine may say about itself:
#   any_loop = True          an AsyncEngine that may be awaited from any event loop; any other stays on one
#   concurrent = True        a BatchEngine that joins calls from several threads itself
#   fills_max_tokens = True  a Request's max_tokens stays None where the caller gave none
#   identity                 Mapping[str, str]: what answers, without secrets
#   on_throttle              settable: called for each throttle that is about to be retried
# A backend that a Plan can be opened with has `plan_options(plan_as_dict) -> options for open`.
# Methods that an engine may add; the client looks for them by name and consults `capabilities`:
#   generate engines  stream(request) -> Iterator[Delta]      | astream(request) -> AsyncIterator[Delta]
#                     score(pairs) -> list[Score]             | ascore(pairs)
#                     count_tokens(prompt) -> int
#   embed engines     embed(texts, *, role, normalize, dimensions) -> Embeddings    | aembed(...)
#   rerank engines    rerank(query, documents) -> Ranking     | arerank(...)
#   all               close() -> None                         | async aclose() -> None
#                     interrupt() -> None: from any thread, before close: what runs ends soon, with `Closed`


@runtime_checkable
class Backend(Protocol):
    """What an entry point of the group `memserve.backends` resolves to.

    The planner asks more of a room (`rules`, `memory`, `launch`): see `memserve.engines.backend.Plannable`.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do at best, before a model is named; loads no engine."""
        ...

    def open(self, model: str | None = None, *, task: Task = "generate", **options: Any) -> Any:
        """Start an engine for one task; raises `BackendMissing` with the install line."""
        ...


# ---------------------------------------------------------------- what a caller holds


class Generator(Protocol):
    """One model behind one backend. A context manager."""

    @property
    def capabilities(self) -> Capabilities: ...
    def generate(self, prompt: Any, **settings: Any) -> Any:
        """One prompt gives a Completion, a list of prompts a list in the same order."""
        ...

    def stream(self, prompt: Prompt, **settings: Any) -> Iterator[Delta]: ...
    async def agenerate(self, prompt: Any, **settings: Any) -> Any: ...
    def astream(self, prompt: Prompt, **settings: Any) -> AsyncIterator[Delta]: ...
    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]: ...
    def count_tokens(self, text: Prompt) -> int: ...
    def close(self) -> None: ...


class Embedder(Protocol):
    """One embedding model behind one backend. A context manager."""

    @property
    def capabilities(self) -> Capabilities: ...
    def embed(self, texts: Sequence[str], *, role: str | None = None, normalize: bool | None = None,
              dimensions: int | None = None) -> Embeddings: ...  # fmt: skip
    def close(self) -> None: ...


class Reranker(Protocol):
    """One cross-encoder behind one backend. A context manager."""

    @property
    def capabilities(self) -> Capabilities: ...
    def rerank(self, query: str, documents: Sequence[str]) -> Ranking: ...
    def close(self) -> None: ...
