"""What batch services of HTTP backends share: lines read, answers told from errors."""

from collections.abc import Mapping
from typing import Any

from memserve.errors import MemserveError, ServerFailed
from memserve.http import failure
from memserve.http.body import bad, parse, understood
from memserve.http.client import HttpClient
from memserve.http.engine import HttpEngine
from memserve.protocol import Completion, Request


def rows(words: str, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """The objects of a body of lines."""
    found = [parse(line) for line in words.split("\n") if line.strip()]
    return [row for row in found if isinstance(row, dict)]


def object_of(words: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """The object that a body is."""
    found = parse(words)
    if not isinstance(found, dict):
        raise bad("the batch service answered no object")
    return found


def body_of(engine: HttpEngine, request: Request) -> dict[str, Any]:
    """What the engine would post for a request."""
    return object_of((engine.write(request, stream=False).body or b"").decode(), {})


def answer_of(engine: HttpEngine, request: Request, words: str) -> Completion | MemserveError:
    """What the engine makes of one body, an error included."""
    try:
        return understood(engine.read, request, words, {})
    except MemserveError as error:
        return error


def error_of(client: HttpClient, status: Any, said: Any) -> MemserveError:
    """The error of a request that the batch did not answer; one that was not reached may be asked again."""
    words = failure.read(said) if isinstance(said, dict) else None
    if words is None or "batch_expired" in words.codes or not isinstance(status, int):
        return ServerFailed((words and words.message) or "the batch ended before this request was answered")
    return client.failed(words, status, {})
