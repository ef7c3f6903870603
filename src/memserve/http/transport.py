"""The one seam between memserve and a network: a call goes out, an answer's head and body come back."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from memserve.errors import ConnectionFailed


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
