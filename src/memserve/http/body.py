"""Bodies: decompressed within a limit, decoded by their charset, read as JSON that means one thing."""

import json
import logging
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from memserve import files
from memserve.errors import BadAnswer, MemserveError, RemoteError
from memserve.http.transport import Answer, within

T = TypeVar("T")
log = logging.getLogger("memserve.http")
ACCEPT_ENCODING = "gzip"
_WBITS_AUTO = 47
_KEPT = 4096
"""Characters of a broken answer that go into the error; the client masks keys, then shortens."""


def bad(message: str, *, retries: int | None = 2) -> BadAnswer:
    """A BadAnswer that is worth so many retries; None: not worth any."""
    error = BadAnswer(message)
    error.retries = retries
    error.retryable = retries is not None
    return error


class Inflater:
    """Undoes gzip and deflate piece by piece; never makes more than the limit allows."""

    def __init__(self, encoding: str, limit: int) -> None:
        self._limit = limit
        self._made = 0
        self._steps = [zlib.decompressobj(_WBITS_AUTO) for name in _encodings(encoding)]

    def feed(self, chunk: bytes) -> bytes:
        """The decoded form of a chunk."""
        for step in range(len(self._steps)):
            chunk = self._inflate(step, chunk)
        self._made += 0 if self._steps else len(chunk)
        if self._made > self._limit:
            raise _too_large(self._limit)
        return chunk

    def finish(self) -> None:
        """Prove that the compressed body is whole."""
        if any(not step.eof for step in self._steps) and self._made:
            raise bad("the compressed body ends too early")

    def _inflate(self, step: int, chunk: bytes) -> bytes:
        pieces = []
        while chunk:
            if self._steps[step].eof:
                self._steps[step] = zlib.decompressobj(_WBITS_AUTO)
            left = self._limit - self._made + 1
            try:
                piece = self._steps[step].decompress(chunk, left)
            except zlib.error:
                raise bad("the compressed body is corrupt") from None
            pieces.append(piece)
            self._made += len(piece)
            if self._made > self._limit:
                raise _too_large(self._limit)
            chunk = self._steps[step].unconsumed_tail or self._steps[step].unused_data
        return b"".join(pieces)


def _encodings(header: str) -> list[str]:
    names = [name.strip().lower() for name in header.split(",") if name.strip()]
    names = [name for name in names if name != "identity"]
    if any(name not in ("gzip", "x-gzip", "deflate") for name in names) or len(names) > 2:
        raise bad(f"the body is encoded as {header!r}, which was not asked for", retries=None)
    return names


def _too_large(limit: int) -> BadAnswer:
    return bad(f"the body exceeds {limit // 2**20} MiB", retries=None)


async def pieces(answer: Answer, limit: int) -> AsyncIterator[bytes]:
    """The decoded body as it arrives, within the limit."""
    encoding = "" if answer.decoded else answer.headers.get("content-encoding", "")
    inflater = Inflater(encoding, limit)
    async for chunk in answer.chunks():
        yield inflater.feed(chunk)
    inflater.finish()


async def whole(answer: Answer, limit: int) -> bytes:
    """The decoded body at once, within the limit."""
    length = answer.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    return b"".join([piece async for piece in pieces(answer, limit)])


async def beginning(answer: Answer, limit: int, enough: int, seconds: float) -> bytes:
    """What comes of the decoded body within a time: enough to read why a server refused."""
    found = bytearray()

    async def collect() -> None:
        async for piece in pieces(answer, limit):
            found.extend(piece[: enough - len(found)])
            if len(found) >= enough:
                return

    with suppress(RemoteError):
        await within(seconds, collect(), "the reason stalled")
    return bytes(found)


def text(data: bytes, headers: Mapping[str, str], *, strict: bool = False) -> str:
    """The body's text by its charset, UTF-8 where none is named; odd bytes are replaced, or refused."""
    charset = _charset(headers)
    try:
        return data.decode(charset)
    except (LookupError, UnicodeError):
        log.warning("the answer holds bytes that are not %s; read as UTF-8", charset)
    try:
        return data.decode("utf-8-sig", "strict" if strict else "replace")
    except UnicodeDecodeError as broken:
        raise bad(f"the answer is not UTF-8 ({broken.reason} at byte {broken.start})") from None


def _charset(headers: Mapping[str, str]) -> str:
    kind = headers.get("content-type", "")
    if "charset=" not in kind:
        return "utf-8-sig"
    name = kind.lower().partition("charset=")[2].partition(";")[0].strip(" \"'")
    return "utf-8-sig" if name in ("", "utf-8", "utf8") else name


def parse(words: str) -> Any:
    """JSON of one meaning: a repeated key is refused; NaN and the infinities come as floats."""
    try:
        return _DECODER.decode(words)
    except (ValueError, RecursionError) as broken:
        if isinstance(broken, BadAnswer):
            raise
        reason = "nested too deep" if isinstance(broken, RecursionError) else getattr(broken, "msg", broken)
        raise bad(f"the answer is not JSON ({reason}): {words[:_KEPT]!r}") from None


def counted(key: str) -> Callable[[str, Mapping[str, str]], int]:
    """Reads an answer that is a count of tokens under this key."""

    def read(words: str, headers: Mapping[str, str]) -> int:
        found = parse(words)
        tokens = found.get(key) if isinstance(found, dict) else None
        if not isinstance(tokens, int):
            raise bad("the answer has no count of tokens")
        return tokens

    return read


def understood(read: Callable[..., T], *words: Any) -> T:
    """What a backend's `read` makes of what a server sent; a shape that it stumbles over is a BadAnswer."""
    try:
        return read(*words)
    except MemserveError:
        raise
    except files.STUMBLES as broken:
        reason = f"{type(broken).__name__}: {broken}"
    raise bad(f"the answer has a shape that nobody expects ({reason})")


_DECODER = json.JSONDecoder(object_pairs_hook=files.once)
