"""One tree of errors. Each says what is wrong, where, and what to do; none ever carries a key.

MemserveError                    .retryable, .hint
├── InvalidInput                 the caller's words are malformed (also a ValueError)
│   ├── UnknownName              a card, model, backend, ... that nobody knows; .suggestions
│   └── Unsupported              this backend cannot honour this setting; .backend, .setting
├── DoesNotFit                   rules or memory forbid every candidate; .closest
├── ModelUnreadable              a checkpoint, config or tokenizer is broken; .path, .field
├── BackendMissing               the engine behind a backend is not installed; .install
├── ContextOverflow              prompt + answer exceed the context; .tokens, .limit, .prompt
├── Closed                       the generator or embedder was closed before this call
├── EngineFailed                 a local engine or its server process broke
├── Cancelled                    the caller gave the request up
├── RunError                     the runner cannot go on
│   ├── OutputInUse              another run holds this output
│   ├── JournalBroken            the journal is damaged beyond its last record
│   ├── StorageFull              the disk is full; the run can be resumed
│   └── BudgetSpent              the money or token budget is used up
└── RemoteError                  what a server or the way to it did; .status, .code, .request_id
    ├── ConnectionFailed         no answer: refused, reset, DNS, TLS, a broken stream
    ├── TimedOut                 a time limit passed: connect, first byte, idle or total
    ├── Throttled                asked to slow down; .retry_at
    │   └── QuotaExceeded        no money or quota left: waiting does not help
    ├── Overloaded               the server is up and too busy
    ├── ServerFailed             5xx that is not overload
    ├── Redirected                   3xx: the server points elsewhere, which is never followed
    ├── BadAnswer                the answer is not what the protocol says
    ├── BadRequest               4xx: the request is wrong
    ├── AuthenticationFailed     401: the key is wrong, missing or expired
    ├── PermissionDenied         403
    ├── NotFound                 404: no such model or route
    └── ContentRefused           the provider's policy refused the input or the answer
"""

from collections.abc import Sequence
from typing import Any


def printable(text: str) -> str:
    """A text of somebody else's without control characters, which terminals and logs obey."""
    return text if text.isprintable() else "".join(sign if sign.isprintable() else " " for sign in text)


class MemserveError(Exception):
    """Root of every error that memserve raises on purpose."""

    retryable: bool = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return printable(f"{self.message} ({self.hint})" if self.hint else self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross processes whole, whatever their constructors ask for."""
        return _restored, (type(self), self.args, vars(self).copy())


def _restored(kind: type[MemserveError], args: tuple[Any, ...], state: dict[str, Any]) -> MemserveError:
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


class InvalidInput(MemserveError, ValueError):
    """The caller's words are malformed: nothing was started."""


class UnknownName(InvalidInput):
    """A name that nobody knows, with the nearest names that somebody does."""

    def __init__(self, message: str, *, suggestions: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.suggestions = tuple(suggestions)


class Unsupported(InvalidInput):
    """A backend cannot honour a setting; refused before any work."""

    def __init__(self, backend: str, setting: str, reason: str = "", *, hint: str | None = None) -> None:
        tail = f": {reason}" if reason else ""
        super().__init__(f"backend {backend!r} does not support {setting}{tail}", hint=hint)
        self.backend = backend
        self.setting = setting


class DoesNotFit(MemserveError):
    """Rules or memory forbid every candidate; `closest` is the nearest miss."""

    def __init__(self, message: str, *, closest: object = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.closest = closest


class ModelUnreadable(MemserveError):
    """A checkpoint, config, tokenizer or template is broken; names the file and the field."""

    def __init__(self, message: str, *, path: str | None = None, field: str | None = None,
                 hint: str | None = None) -> None:  # fmt: skip
        super().__init__(message, hint=hint)
        self.path = path
        self.field = field


class BackendMissing(MemserveError):
    """What a backend or an extra needs is not installed; `install` is the command that installs it."""

    def __init__(self, backend: str, *, needs: str, install: str) -> None:
        super().__init__(f"{backend!r} needs {needs}, which is not installed", hint=f"run: {install}")
        self.backend = backend
        self.needs = needs
        self.install = install


class ContextOverflow(MemserveError):
    """The prompt and the room for the answer exceed the context."""

    status: int | None = None
    """The HTTP status, where a server found out."""

    def __init__(self, *, tokens: int | None, limit: int | None, message: str = "",
                 prompt: int | None = None) -> None:  # fmt: skip
        text = message or f"{tokens} tokens exceed the context of {limit}"
        super().__init__(
            text, hint="shorten the prompt, lower max_tokens, or pass truncate='left' or 'middle'"
        )
        self.tokens = tokens
        self.limit = limit
        self.prompt = prompt
        """The prompt's share of the tokens, where that is known."""


class Closed(MemserveError):
    """Used after close()."""


class EngineFailed(MemserveError):
    """A local engine or its server process broke; the text carries its own words."""


class Cancelled(MemserveError):
    """The caller gave the request up."""


class RunError(MemserveError):
    """The runner cannot go on."""


class OutputInUse(RunError):
    """Another run holds this output."""


class JournalBroken(RunError):
    """The journal is damaged beyond its last record."""


class StorageFull(RunError):
    """The disk is full; the run stops cleanly and can be resumed."""


class BudgetSpent(RunError):
    """The money or token budget of the run is used up."""


class RemoteError(MemserveError):
    """What a server, or the way to it, did."""

    def __init__(self, message: str, *, status: int | None = None, code: str | None = None,
                 request_id: str | None = None, retry_at: float | None = None,
                 hint: str | None = None) -> None:  # fmt: skip
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_at = retry_at
        """Seconds since the epoch before which a retry is pointless; None where nobody said."""
        self.retries: int | None = None
        """The most retries that this failure is worth; None: as many as the caller allows."""
        self.server_time: float | None = None
        """The server's own clock when it answered, as seconds since the epoch; None where it did not say."""
        self.resets: tuple[float, ...] = ()
        """When limits are whole again, where that is all the server said; a retry may well pass before."""


class ConnectionFailed(RemoteError):
    """No answer: refused, reset, unresolvable, TLS, or a broken stream."""

    retryable = True


class TimedOut(RemoteError):
    """A time limit passed: connect, first byte, idle or total."""

    retryable = True


class Throttled(RemoteError):
    """The server asks to slow down."""

    retryable = True


class QuotaExceeded(Throttled):
    """No money or quota is left: waiting does not help."""

    retryable = False


class Overloaded(RemoteError):
    """The server is up and too busy."""

    retryable = True


class ServerFailed(RemoteError):
    """A 5xx that is not overload."""

    retryable = True


class Redirected(RemoteError):
    """The server points elsewhere; following would hand the key to another host."""


class BadAnswer(RemoteError):
    """The answer is not what the protocol says it should be."""

    retryable = True


class BadRequest(RemoteError):
    """A 4xx: the request itself is wrong, so sending it again is pointless."""


class AuthenticationFailed(RemoteError):
    """The key is wrong, missing or expired."""


class PermissionDenied(RemoteError):
    """The key is known and may not do this."""


class NotFound(RemoteError):
    """No such model or route."""


class ContentRefused(RemoteError):
    """The provider's policy refused the input or the answer."""
