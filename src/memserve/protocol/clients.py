"""What a caller holds, and the settings of one call, key by key, for editors and type checkers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, overload

from memserve.protocol.values import (
    Capabilities,
    Completion,
    Delta,
    Embeddings,
    OnError,
    Prompt,
    PromptLike,
    Ranking,
    Raw,
    Score,
    ScorePrompts,
    Truncate,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Settings(TypedDict, total=False):
    """What a call may set. A key that is left out, or None, means memserve's default.

    A backend that lacks a setting refuses it with `Unsupported`, before any work.
    """

    max_tokens: int | None
    """The most tokens that an answer may have; 512 by default."""
    temperature: float | None
    """How freely tokens are drawn; 0, the default, takes the likeliest each time."""
    top_p: float | None
    """Draws among the likeliest tokens that together hold this share; 1 by default."""
    top_k: int | None
    """Draws among so many of the likeliest tokens."""
    min_p: float | None
    """Leaves out tokens below this share of the likeliest one's probability."""
    seed: int | None
    """Makes what is drawn repeatable."""
    stop: str | Sequence[str] | None
    """A string, or strings, that end an answer; they are not part of it."""
    n: int | None
    """How many answers to one prompt; they are in `Completion.samples`."""
    logprobs: int | None
    """Tells each token's log-probability, and so many of the likeliest others'."""
    schema: Mapping[str, Any] | type | None
    """What the answer must keep: a JSON schema, or a pydantic model class for `parsed` to be of."""
    reask: int | None
    """How often an answer that breaks its schema is asked for again; 0 by default."""
    regex: str | None
    """A regular expression that the whole answer must match."""
    choices: Sequence[str] | None
    """The answer is one of these strings."""
    tools: Sequence[Mapping[str, Any]] | None
    """Functions that the model may ask for, in the form that chat completions take."""
    tool_choice: str | Mapping[str, Any] | None
    """Which of the tools the model must, may or must not ask for."""
    truncate: Truncate | None
    """A prompt that is too long is refused (the default), or cut on the left or in the middle."""
    thinking: bool | int | None
    """Whether the model thinks before it answers; a number bounds the tokens of its thought."""
    template: Mapping[str, Any] | None
    """Variables of the model's chat template."""
    extra: Mapping[str, Any] | None
    """Settings of one provider only, with its prefix: {"openai_service_tier": "flex"}."""


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
    def encode(self, text: str | Raw) -> list[int]: ...
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
