"""The values that pass between a caller and an engine; what a backend can do among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from memserve.errors import MemserveError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


FinishReason: TypeAlias = Literal["stop", "length", "content_filter", "tool_calls"]
Truncate: TypeAlias = Literal["refuse", "left", "middle"]
Task: TypeAlias = Literal["generate", "embed", "rerank"]
OnError: TypeAlias = Literal["raise", "return"]

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
"""One prompt, as an engine gets it: one user message, plain text, a conversation, or token ids."""
PromptLike: TypeAlias = "Prompt | Request | NDArray[np.integer[Any]]"
"""One prompt, as a caller may pass it."""
ScorePrompts: TypeAlias = "tuple[Prompt, str | Sequence[int]]"
"""A context, whose text stands as it is, and its continuation."""


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
    reask: int = 0
    """How often an answer that breaks its schema is asked for again."""
    template: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the model's chat template."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Settings of one provider only, spelled with its prefix: {"openai_service_tier": "flex"}."""


class Value:
    """An answer, or a part of one."""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values that JSON can hold; None stands where nothing is known."""
        return {name: _plain(value) for name, value in vars(self).items()}


def _plain(value: object) -> Any:
    if isinstance(value, Value):
        return value.to_dict()
    if isinstance(value, MemserveError):
        return {"type": type(value).__name__, "message": str(value), "retryable": value.retryable}
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_plain(part) for part in value]
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return value.tolist() if hasattr(value, "tolist") else value


@dataclass(frozen=True)
class Usage(Value):
    """Tokens as the engine counted them, without padding. None: the engine did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    """Of the completion's, those of the thought before the answer."""
    written_tokens: int | None = None
    """Of the prompt's, those that were written to a prefix cache, at a price of their own."""


@dataclass(frozen=True)
class TokenLogprob(Value):
    """One generated token with its natural-log probability and its strongest rivals."""

    token: str
    logprob: float | None
    """None: the server sent no number (NaN); -9999.0 is the floor for "impossible"."""
    token_id: int | None = None
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ToolCall(Value):
    """A call that the model asks for. `arguments` is the JSON text as it was sent."""

    id: str
    name: str
    arguments: str
    signature: str | None = None
    """What the provider wants to see again with the call: its signed thoughts, or their signature."""


@dataclass(frozen=True)
class Sample(Value):
    """One of the n answers to one request."""

    text: str | None
    finish_reason: FinishReason | None = None
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    refusal: str | None = None
    """The model's own words where it refused to answer; `text` is None then."""
    parsed: Any = None
    """Under a schema: the answer's value, an instance where the schema was a pydantic model."""


@dataclass(frozen=True)
class Completion(Value):
    """The answer to one request; with n > 1 its own fields are those of the first sample."""

    text: str | None
    finish_reason: FinishReason | None = None
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    refusal: str | None = None
    parsed: Any = None
    usage: Usage = Usage()
    samples: tuple[Sample, ...] = ()
    model: str | None = None
    by: str | None = None
    """Which generator of a route answered: BACKEND:MODEL."""
    request_id: str | None = None
    error: MemserveError | None = None


@dataclass(frozen=True)
class Delta(Value):
    """A piece of a streamed answer. `usage` comes once, with the last piece, where it is known."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """Whole calls, with the last piece."""
    by: str | None = None
    """Which generator of a route writes: BACKEND:MODEL."""


@dataclass(frozen=True)
class Score(Value):
    """The log-likelihood of a continuation after its context; `greedy`: argmax would have said the same."""

    logprob: float
    tokens: int
    greedy: bool | None = None
    logprobs: Sequence[TokenLogprob] = field(default=(), compare=False, repr=False)
    """Each token of the continuation, with the likeliest one in its place as its `top`; empty: not told."""


@dataclass(frozen=True)
class Embeddings(Value):
    """Vectors in the order of the texts: float32, [n, d]."""

    vectors: NDArray[np.float32]
    usage: Usage = Usage()
    model: str | None = None


@dataclass(frozen=True)
class Ranking(Value):
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
    thoughts: bool = False
    """The provider wants to see earlier thoughts again (`reasoning_content` of a message)."""
    cache_marks: int = 0
    """Tokens from which a prefix is cached where a part carries `cache_control`; 0: no marks are taken."""
    stream: bool = False
    extras: frozenset[str] = frozenset()
    # what an answer carries
    returns_token_ids: bool = False
    usage: bool = False
    deterministic: bool = False
    """Greedy answers repeat to the token, alone or in company."""
    count_tokens: bool = False
    tokenizer: bool = False
    """`encode` and `decode`; with `score`, `score_text`."""
    cancel: bool = False
    batches: bool = False
    """A local engine: a long list in one call is much faster than many calls (`memserve.run` feeds it so)."""
    # embedding and reranking
    roles: frozenset[str] = frozenset()
    normalize: bool = False
    dimensions: bool = False
    """Shorter vectors may be asked for."""
    notes: tuple[str, ...] = ()
