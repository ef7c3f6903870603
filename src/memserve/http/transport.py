"""The one seam between memserve and a network, and its limits: a call goes out, head and body come back."""

import asyncio
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from memserve.errors import ConnectionFailed, InvalidInput, TimedOut

if sys.version_info >= (3, 11):
    from asyncio import timeout as _timeout
else:
    from async_timeout import timeout as _timeout

MIB = 2**20
_STARTUP_ATTEMPTS = 10
_STARTUP_CAP = 300.0
_IDLE = 120.0


@dataclass(frozen=True)
class Limits:
    """Seconds and bytes. Nothing waits without one of them."""

    timeout: float = 600.0
    """One attempt as a whole: connect, send, wait and read."""
    max_retries: int = 4
    first_byte: float | None = None
    """From sending to the answer's head; None: `timeout`."""
    idle: float | None = None
    """Between two events of a stream that carry content; None: 120 s, at most `timeout`."""
    connect: float = 30.0
    max_wait: float = 120.0
    """The longest pause that a server may ask for; a longer one is an error that says until when."""
    startup: float | None = None
    """How long a server that refuses connections or loads its model is waited for; None: 10 x timeout,
    at most 300 s."""
    body: int = 64 * MIB
    """The largest decoded body."""
    event: int = 8 * MIB
    """The largest single event of a stream."""

    def __post_init__(self) -> None:
        for name in ("timeout", "connect", "max_wait"):
            _positive(name, getattr(self, name))
        for name in ("first_byte", "idle", "startup"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name))
        if (
            isinstance(self.max_retries, bool)
            or not isinstance(self.max_retries, int)
            or self.max_retries < 0
        ):
            raise InvalidInput(f"max_retries is a whole number from 0, not {self.max_retries!r}")

    @property
    def head_seconds(self) -> float:
        """The first-byte limit in force."""
        return min(self.first_byte or self.timeout, self.timeout)

    @property
    def idle_seconds(self) -> float:
        """The idle limit in force."""
        return min(self.idle or _IDLE, self.timeout)

    @property
    def startup_seconds(self) -> float:
        """The start-up limit in force."""
        return self.startup or min(_STARTUP_ATTEMPTS * self.timeout, _STARTUP_CAP)


def _positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise InvalidInput(f"{name} is a positive number of seconds, not {value!r}")


T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T], what: str) -> T:
    """The result of a wait that may take so many seconds, or TimedOut."""
    try:
        async with _timeout(max(0.0, seconds)):
            return await work
    except (TimeoutError, asyncio.TimeoutError):
        raise TimedOut(what) from None


@dataclass(frozen=True)
class Call:
    """One HTTP request, ready to be sent. Its headers hold the key, so its repr leaves them out."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


class Answer(Protocol):
    """The head of an HTTP answer, and the way to its body."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    decoded: bool
    """True where the transport has undone Content-Encoding already."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; raises ConnectionFailed where it is cut."""
        ...

    async def release(self) -> None:
        """Give the connection back (body read) or close it (body left)."""
        ...


class Transport(Protocol):
    """Sends calls. Redirects are not followed and nothing is retried here."""

    async def send(self, call: Call) -> Answer:
        """The answer's head, or one of ConnectionFailed's kinds below."""
        ...

    def close(self) -> None:
        """Close what is open; from any thread."""
        ...


class Refused(ConnectionFailed):
    """Nobody listens: nothing was sent, so waiting for the server to start costs nothing."""


class Stale(ConnectionFailed):
    """A kept-alive connection was found closed before a byte of the answer: one replay is safe."""


class Untrusted(ConnectionFailed):
    """The server's certificate does not verify: another attempt would fail alike."""

    retryable = False


class ProxyRefused(ConnectionFailed):
    """The proxy does not let us through."""

    retryable = False
