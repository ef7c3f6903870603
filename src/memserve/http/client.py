"""One client for one HTTP server: attempts, limits, pauses, secrets. Backends add what their wire says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

from memserve.errors import (
    AuthenticationFailed,
    Closed,
    MemserveError,
    RemoteError,
    Throttled,
    TimedOut,
)
from memserve.http import body, failure
from memserve.http.address import Address
from memserve.http.failure import SHARED, KnownErrors
from memserve.http.retry import Attempts, Seen, Throttle
from memserve.http.secret import Mask
from memserve.http.transport import Answer, Call, Limits, Transport, within
from memserve.protocol import observer

T = TypeVar("T")
log = logging.getLogger("memserve.http")
_PROBE_SECONDS = 10.0
_POLL_SECONDS = 1.0
_ERROR_BODY = 2**20
_ERROR_SECONDS = 5.0
_SHOWN = 1000


class Signer(Protocol):
    """Puts the credentials on a call; may sign it, or fetch and refresh a token first."""

    async def sign(self, call: Call) -> Call:
        """The call with its credentials, made anew for every attempt."""
        ...

    async def renew(self, error: AuthenticationFailed) -> bool:
        """After a 401: True where fresh credentials make one replay worth it."""
        ...


class HttpClient:
    """Sends calls to one server and turns whatever happens into an answer or one of memserve's errors."""

    def __init__(self, address: Address, signer: Signer, transport: Transport, limits: Limits, mask: Mask,
                 errors: KnownErrors = SHARED, health: str = "/health",
                 success: int = 200) -> None:  # fmt: skip
        self.address = address
        self.limits = limits
        self.mask = mask
        self._signer = signer
        self._transport = transport
        self._errors = errors
        self._health = health
        self._success = success
        self._throttle = Throttle()
        self._seen = Seen()
        self._closed = False

    def __repr__(self) -> str:
        return f"HttpClient({self.address.shown!r})"

    async def fetch(self, call: Call, read: Callable[[str, Mapping[str, str]], T], *,
                    retried: bool = True) -> T:  # fmt: skip
        """What `read` makes of the answer's text and headers; it raises BadAnswer where they are wrong.

        `retried=False`: one attempt only, for what must not be done twice.
        """

        async def once() -> T:
            limit = self.limits.timeout
            return await within(limit, self._exchange(call, read), f"no whole answer within {limit:g} s")

        return await (self._persist(once) if retried else self._tried(once))

    async def stream(self, call: Call,
                     events: Callable[[Answer, Pieces], AsyncIterator[T]]) -> AsyncIterator[T]:  # fmt: skip
        """The items of a streamed answer; an attempt that breaks is repeated only if nothing was yielded."""
        attempts = Attempts(self.limits, self._seen)
        while True:
            yielded = False
            sent = await self._turn(self.limits.timeout)
            source = self._streamed(call, events)
            try:
                async for item in source:
                    yielded = True
                    yield item
                return
            except RemoteError as error:
                self._clean(error)
                if yielded:
                    raise
                await self._pause(attempts, error, sent)
            finally:
                await source.aclose()

    async def probe(self, url: str, method: str = "GET", content: bytes | None = None) -> tuple[int, str]:
        """Status and text of a side request, tried once; status 0 where there is no answer."""
        call = self.call(url, content, method=method)
        with suppress(MemserveError):
            return await within(min(_PROBE_SECONDS, self.limits.timeout), self._probed(call), "no answer")
        return 0, ""

    def call(self, url: str, content: bytes | None, *, method: str = "POST",
             headers: Mapping[str, str] | None = None) -> Call:  # fmt: skip
        """A call with the headers that every call has."""
        return Call(method, url, {**_HEADERS, **(headers or {})}, content)

    def failed(self, words: failure.Words, status: int, headers: Mapping[str, str]) -> MemserveError:
        """The error of a failure that stands in a body whose status says success."""
        return failure.of_words(words, status, headers, mask=self.mask, known=self._errors)

    def close(self) -> None:
        """Close the transport's connections."""
        self._closed = True
        self._transport.close()

    async def _persist(self, once: Callable[[], Awaitable[T]]) -> T:
        attempts = Attempts(self.limits, self._seen)
        while True:
            sent = await self._turn(self.limits.timeout)
            try:
                return await once()
            except RemoteError as error:
                self._clean(error)
                await self._pause(attempts, error, sent)

    async def _tried(self, once: Callable[[], Awaitable[T]]) -> T:
        await self._turn(self.limits.timeout)
        try:
            return await once()
        except RemoteError as error:
            self._clean(error)
            raise

    def _clean(self, error: RemoteError) -> None:
        """Mask keys in what a server said, and only then shorten it."""
        error.message = self.mask(error.message)[:_SHOWN]
        error.args = (error.message,)

    async def _pause(self, attempts: Attempts, error: RemoteError, sent: float) -> None:
        """Wait before the next attempt, or raise the error for good."""
        observed = observer.get()
        if observed is not None:
            observed.failed(error)
        if isinstance(error, AuthenticationFailed) and await self._renewed(attempts, error):
            return
        seconds = attempts.after(error)
        log.info("%s; next attempt in %.1f s", error.message, seconds)
        if isinstance(error, Throttled):
            if error.retry_at is not None:
                self._throttle.pause(seconds)
            elif observed is None:  # an observer paces what the server gives no moment for
                self._throttle.pause(seconds, sent)
            return
        if isinstance(error, failure.Loading):
            await self._until_loaded(seconds)
        else:
            await asyncio.sleep(seconds)

    async def _renewed(self, attempts: Attempts, error: AuthenticationFailed) -> bool:
        if attempts.renewed or not await self._signer.renew(error):
            return False
        attempts.renewed = True
        return True

    async def _turn(self, limit: float) -> float:
        """Wait until an attempt may go out; the moment when it does."""
        if self._throttle.remaining:
            await self._throttle.wait()
        observed = observer.get()
        if observed is not None:
            await observed.before(limit)
        return time.monotonic()

    async def _until_loaded(self, first: float) -> None:
        """Poll the server's health while it loads its model, which costs no attempt."""
        deadline = time.monotonic() + self.limits.startup_seconds
        await asyncio.sleep(first)
        while time.monotonic() < deadline:
            status, _ = await self.probe(self.address.url(self._health))
            if status not in (0, 503):
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _exchange(self, call: Call, read: Callable[[str, Mapping[str, str]], T]) -> T:
        answer = await self._send(call)
        try:
            words = body.text(await body.whole(answer, self.limits.body), answer.headers, strict=True)
        finally:
            await answer.release()
        self._refuse_page(answer)
        return body.understood(read, words, answer.headers)

    async def _send(self, call: Call) -> Answer:
        """The answer's head where it says success; its error otherwise."""
        if self._closed:
            raise Closed("closed while the answer was on its way")
        signed = await self._signer.sign(call)
        limit = self.limits.head_seconds
        if limit < self.limits.timeout:
            answer = await within(limit, self._transport.send(signed), f"no first byte within {limit:g} s")
        else:
            answer = await self._transport.send(signed)
        self._seen.answered = True
        if answer.status == self._success:
            return answer
        try:
            seconds = min(_ERROR_SECONDS, self.limits.timeout / 2)
            words = await body.beginning(answer, self.limits.body, _ERROR_BODY, seconds)
            text = body.text(words, answer.headers)
        finally:
            await answer.release()
        if 200 <= answer.status < 300:
            raise body.bad(f"HTTP {answer.status} is not an answer")
        raise failure.error_of(answer.status, answer.headers, text, mask=self.mask, known=self._errors)

    def _refuse_page(self, answer: Answer) -> None:
        kind = answer.headers.get("content-type", "")
        if kind.lower().lstrip().startswith(("text/html", "application/xhtml")):
            raise body.bad(f"the answer is a web page (content type {kind!r}), not JSON", retries=None)

    async def _streamed(self, call: Call, events: Callable[[Answer, Pieces], AsyncIterator[T]],
                        ) -> AsyncGenerator[T, None]:  # fmt: skip
        started = time.monotonic()
        limit = self.limits.head_seconds
        answer = await within(limit, self._send(call), f"no first byte within {limit:g} s")
        try:
            self._refuse_page(answer)
            async for item in events(answer, Pieces(answer, self.limits, started)):
                yield item
        finally:
            await answer.release()

    async def _probed(self, call: Call) -> tuple[int, str]:
        answer = await self._transport.send(await self._signer.sign(call))
        try:
            return answer.status, body.text(await body.whole(answer, _ERROR_BODY), answer.headers)
        finally:
            await answer.release()


class Pieces:
    """The decoded body of a stream under its time limits."""

    def __init__(self, answer: Answer, limits: Limits, started: float) -> None:
        self._source = body.pieces(answer, limits.body)
        self._limits = limits
        self._end = started + limits.timeout
        self._idle_end = time.monotonic() + limits.head_seconds

    def content(self) -> None:
        """Content has arrived: the idle limit starts anew. Comments and pings do not call this."""
        self._idle_end = time.monotonic() + self._limits.idle_seconds

    async def next(self) -> bytes | None:
        """The next bytes; None at the end."""
        now = time.monotonic()
        if self._end <= self._idle_end:
            seconds, what = self._end - now, f"no whole answer within {self._limits.timeout:g} s"
        else:
            seconds, what = self._idle_end - now, "the stream stalled"
        if seconds <= 0:
            raise TimedOut(what)
        return await within(seconds, anext(self._source, None), what)


_HEADERS = {
    "Content-Type": "application/json", "Accept": "*/*", "Accept-Encoding": body.ACCEPT_ENCODING,
    "User-Agent": "memserve/0.1.0",
}  # fmt: skip
