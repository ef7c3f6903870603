"""Cuts a prompt to the context, on the side that the caller named; counted by the server's tokenizer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from memserve.errors import ContextOverflow
from memserve.http.chat import messages
from memserve.protocol import DEFAULT_MAX_TOKENS, Raw, Request, Truncate
from memserve_openai.tokens import Tokens

T = TypeVar("T")
_ROUNDS = 4


async def fit(request: Request, tokens: Tokens) -> Request:
    """The request with a prompt that leaves space for its answer; of messages the longest is cut."""
    count, limit = await tokens.count(request.prompt)
    if limit is None:
        return request
    space = limit - (request.max_tokens or DEFAULT_MAX_TOKENS)
    if count <= space:
        return request
    if space <= 0:
        raise ContextOverflow(tokens=count + limit - space, limit=limit)
    prompt = request.prompt
    if isinstance(prompt, Raw):
        ids = await tokens.encode(prompt.text, special=True)
        return replace(request, prompt=cut(ids, space, request.truncate))
    if not isinstance(prompt, str) and isinstance(prompt[0], int):
        return replace(request, prompt=cut(prompt, space, request.truncate))  # type: ignore[arg-type]
    return await _fit_chat(request, tokens, count, space, limit)


def cut(items: Sequence[T], space: int, policy: Truncate) -> list[T]:
    """So many items: the last ones ("left" is cut), or the first and the last ("middle" is cut)."""
    if policy == "left":
        return list(items[len(items) - space :])
    head = space - space // 2
    return [*items[:head], *items[len(items) - space // 2 :]]


async def _fit_chat(request: Request, tokens: Tokens, count: int, space: int, limit: int) -> Request:
    talk: list[dict[str, Any]] = [dict(message) for message in messages(request.prompt)]
    texts = [message["content"] if isinstance(message.get("content"), str) else "" for message in talk]
    longest = max(range(len(talk)), key=lambda position: len(texts[position]))
    ids = await tokens.encode(texts[longest], special=False)
    keep = len(ids)
    for _ in range(_ROUNDS):
        keep -= count - space
        if keep <= 0:
            break
        talk[longest]["content"] = await tokens.decode(cut(ids, keep, request.truncate))
        count, _ = await tokens.count(talk)
        if count <= space:
            return replace(request, prompt=talk)
    raise ContextOverflow(tokens=count + limit - space, limit=limit)
