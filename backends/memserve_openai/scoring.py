"""Log-likelihoods: the prompt is echoed with its log-probabilities and one token is thrown away."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from memserve.errors import InvalidInput
from memserve.http import HttpClient
from memserve.http.body import bad, parse
from memserve.http.chat import encode, failure_in
from memserve.http.chat.answer import number
from memserve.protocol import Raw, Score, ScorePrompts, TokenLogprob
from memserve_openai.generation import Tokens

_PARALLEL = 32


async def score(pairs: Sequence[ScorePrompts], client: HttpClient, tokens: Tokens, model: str) -> list[Score]:
    """One Score per pair, in order."""
    gate = asyncio.Semaphore(_PARALLEL)

    async def one(pair: ScorePrompts) -> Score:
        async with gate:
            ids, start = await _split(pair, tokens)
            return await _score(ids, start, client, model)

    return list(await asyncio.gather(*map(one, pairs)))


async def _split(pair: ScorePrompts, tokens: Tokens) -> tuple[list[int], int]:
    """The ids of context and continuation, and where the continuation begins.

    Spaces at the end of a text belong to the continuation, as its tokens carry them; ids stay as they are.
    """
    context, continuation = pair
    if not isinstance(context, str) or not isinstance(continuation, str):
        before = await tokens.prompt(Raw(context) if isinstance(context, str) else context)
        words = isinstance(continuation, str)
        after = await tokens.encode(str(continuation), special=False) if words else continuation
        return [*before, *map(int, after)], len(before)
    bare = context.rstrip()
    ids = await tokens.encode(context + continuation, special=True)
    start = len(await tokens.encode(bare, special=True))
    if start >= len(ids):
        raise InvalidInput("the continuation has no token of its own")
    return ids, max(start, 1)


async def _score(ids: list[int], start: int, client: HttpClient, model: str) -> Score:
    fields = {"prompt": ids, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    call = client.call(client.address.url("completions"), encode({"model": model, **fields}))

    def read(words: str, headers: Mapping[str, str]) -> Score:
        found = parse(words)
        failed = failure_in(found)
        if failed is not None:
            raise client.failed(failed, 200, headers)
        return _sum(found, start, len(ids))

    return await client.fetch(call, read)


def _sum(found: Any, start: int, end: int) -> Score:
    try:
        table = found["choices"][0]["logprobs"]
        values = [number(value) for value in table["token_logprobs"][start:end]]
        words, rivals = table.get("tokens", ())[start:end], table["top_logprobs"][start:end]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise bad("the server did not echo the prompt's log-probabilities") from None
    if len(values) != end - start or None in values:
        raise bad("a token of the prompt has no log-probability")
    known = [value for value in values if value is not None]
    told = tuple(map(_told, words or [""] * len(known), known, rivals))
    greedy = all(one.top[0][0] == one.token for one in told)
    return Score(sum(known), len(known), greedy, told if words else ())


def _told(word: Any, value: float, rivals: Any) -> TokenLogprob:
    others = [(str(rival), number(found) or 0.0) for rival, found in (rivals or {}).items()]
    top = max([(str(word), value), *others], key=lambda pair: pair[1])  # the first of equals
    return TokenLogprob(str(word), value, None, (top,))
