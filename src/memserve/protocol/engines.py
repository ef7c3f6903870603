"""What a backend's author writes: one required method, and what an engine may add to it.

Each thing that may be added is a protocol of its own, which the client asks for with `isinstance`; what a
caller may then use of it stands in `Capabilities`.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

from memserve.errors import MemserveError
from memserve.protocol.values import (
    Capabilities,
    Completion,
    Delta,
    Embeddings,
    Prompt,
    Ranking,
    Request,
    Score,
    ScorePrompts,
    Task,
)

# ---------------------------------------------------------------- required


@runtime_checkable
class Engine(Protocol):
    """What every engine has, whatever its task."""

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do with the model at hand."""
        ...


@runtime_checkable
class BatchEngine(Engine, Protocol):
    """An engine in this process: many requests in, as many answers out, in their order."""

    def generate(self, requests: Sequence[Request]) -> Sequence[Completion]:
        """Answer every request; a request that fails alone comes back with its `error` set."""
        ...


@runtime_checkable
class AsyncEngine(Engine, Protocol):
    """An engine behind a wire: one request, awaited; the caller decides how many at once."""

    async def complete(self, request: Request) -> Completion:
        """Answer one request or raise."""
        ...


@runtime_checkable
class SupportsEmbed(Protocol):
    """An embedding engine in this process: what its only method is."""

    def embed(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
              dimensions: int | None) -> Embeddings:  # fmt: skip
        """One vector per text, in order."""
        ...


@runtime_checkable
class SupportsAsyncEmbed(Protocol):
    """An embedding engine behind a wire."""

    async def aembed(self, texts: Sequence[str], *, role: str | None, normalize: bool | None,
                     dimensions: int | None) -> Embeddings:  # fmt: skip
        """One vector per text, in order."""
        ...


@runtime_checkable
class SupportsRerank(Protocol):
    """A cross-encoder in this process."""

    def rerank(self, query: str, documents: Sequence[str]) -> Ranking:
        """One score per document, in order."""
        ...


@runtime_checkable
class SupportsAsyncRerank(Protocol):
    """A cross-encoder behind a wire."""

    async def arerank(self, query: str, documents: Sequence[str]) -> Ranking:
        """One score per document, in order."""
        ...


# ---------------------------------------------------------------- what an engine may add


@runtime_checkable
class SupportsStream(Protocol):
    """A batch engine that can give an answer piece by piece."""

    def stream(self, request: Request) -> Iterator[Delta]:
        """The answer in pieces; usage and finish reason with the last."""
        ...


@runtime_checkable
class SupportsAsyncStream(Protocol):
    """An awaited engine that can give an answer piece by piece."""

    def astream(self, request: Request) -> AsyncIterator[Delta]:
        """The answer in pieces; usage and finish reason with the last."""
        ...


@runtime_checkable
class SupportsScore(Protocol):
    """An engine that knows how likely a given text is."""

    def score(self, pairs: Sequence[ScorePrompts]) -> Sequence[Score]:
        """The log-likelihood of each continuation after its context."""
        ...


@runtime_checkable
class SupportsAsyncScore(Protocol):
    """The same, awaited."""

    async def ascore(self, pairs: Sequence[ScorePrompts]) -> Sequence[Score]:
        """The log-likelihood of each continuation after its context."""
        ...


@runtime_checkable
class SupportsCountTokens(Protocol):
    """An engine that has the model's own tokenizer."""

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, template included."""
        ...


@runtime_checkable
class SupportsAsyncCountTokens(Protocol):
    """An engine whose server counts."""

    async def acount_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, template included."""
        ...


@runtime_checkable
class SupportsTokenizer(Protocol):
    """An engine that has the model's own tokenizer at hand; `memserve.tokens.Tokenizing` has all of it."""

    @property
    def prefix_token(self) -> int | None:
        """What a text's first token is predicted from."""
        ...

    @property
    def score_window(self) -> int | None:
        """The most tokens that can stand before one that is scored; None: no limit."""
        ...

    def encode(self, text: str) -> list[int]:
        """The text's own token ids, none added."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens spelled out."""
        ...


@runtime_checkable
class SupportsClose(Protocol):
    """An engine that holds something."""

    def close(self) -> None:
        """Free it."""
        ...


@runtime_checkable
class SupportsAsyncClose(Protocol):
    """The same, awaited on the engine's own loop."""

    async def aclose(self) -> None:
        """Free it."""
        ...


@runtime_checkable
class SupportsInterrupt(Protocol):
    """A batch engine whose work can be cut short."""

    def interrupt(self) -> None:
        """From any thread, before `close`: what runs ends soon, with `Closed`."""
        ...


class BatchService(Protocol):
    """Many requests answered later, for less: each batch is found again by its name, whatever happened."""

    batch_limits: tuple[int, int]
    """The most requests, and characters, that one batch should hold."""
    batch_least: int
    """The fewest requests that one batch may hold."""

    async def submit_batch(self, name: str, requests: Mapping[str, Request]) -> str:
        """Hand over requests by their names; what the provider calls the batch. Never tried twice."""
        ...

    async def find_batch(self, name: str, since: float, count: int, others: Collection[str]) -> str | None:
        """What the provider calls a batch whose creation nobody answered; None: it has none."""
        ...

    async def batch_ended(self, identity: str) -> bool:
        """Whether nothing more will come."""
        ...

    async def batch_answers(self, identity: str, requests: Mapping[str, Request],
                            ) -> Mapping[str, Completion | MemserveError] | None:  # fmt: skip
        """What came of each request; one that is missing was not asked. None: it is another batch."""
        ...


@runtime_checkable
class SupportsBatchDone(Protocol):
    """A batch service that keeps something of a batch on this machine."""

    def batch_done(self, identity: str) -> None:
        """Its answers are written down: what was kept may go."""
        ...


@runtime_checkable
class SupportsBatches(Protocol):
    """An engine whose provider has a batch service."""

    @property
    def batch_service(self) -> BatchService:
        """The service."""
        ...


@runtime_checkable
class SupportsGiveUp(Protocol):
    """A batch engine that can leave one request of several unanswered."""

    def give_up(self, request: Request) -> None:
        """From any thread: nobody waits for this answer any more; it may come as an error."""
        ...


@runtime_checkable
class RunsOnAnyLoop(Protocol):
    """`any_loop = True`: an awaited engine for any event loop; any other stays on one."""

    any_loop: bool


@runtime_checkable
class JoinsCalls(Protocol):
    """`concurrent = True`: a batch engine that joins calls from several threads itself."""

    concurrent: bool


@runtime_checkable
class FillsMaxTokens(Protocol):
    """`fills_max_tokens = True`: a request's max_tokens stays None where the caller gave none."""

    fills_max_tokens: bool


@runtime_checkable
class HasIdentity(Protocol):
    """An engine that knows more of what answers than its capabilities say."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Address, revision, dtype, ...; never a secret."""
        ...


class AttemptObserver(Protocol):
    """Set for the task that asks: `observer.set(...)`. A client that asks again by itself calls both."""

    async def before(self, limit: float) -> None:
        """An attempt that may take `limit` seconds is about to be made: returns when it may go out."""
        ...

    def failed(self, error: MemserveError) -> None:
        """The attempt failed, whether or not another follows; it may have been billed all the same."""
        ...


observer: ContextVar[AttemptObserver | None] = ContextVar("observer", default=None)


# ---------------------------------------------------------------- the backend


@runtime_checkable
class Backend(Protocol):
    """What an entry point of the group `memserve.backends` resolves to.

    The planner asks more (`rules`, `memory`, `launch`): see `memserve.engines.backend.Plannable`.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What the backend can do at best, before a model is named; loads no engine."""
        ...

    def open(self, model: str | None = None, *, task: Task = "generate", **options: Any) -> Engine:
        """Start an engine for one task; raises `BackendMissing` with the install line."""
        ...


@runtime_checkable
class SupportsPlanOptions(Protocol):
    """A backend that a Plan can be opened with."""

    def plan_options(self, plan: dict[str, Any]) -> Mapping[str, Any]:
        """The options of `open` that start what the plan (its `to_dict()`) says."""
        ...
