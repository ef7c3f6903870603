"""The server's own tokenizer, where it lends it: vLLM's /tokenize and /detokenize."""

from collections.abc import Mapping, Sequence
from typing import Any

from memserve.http import HttpClient
from memserve.http.body import bad, parse
from memserve.http.chat import encode, messages
from memserve.protocol import Prompt, Raw


class Tokens:
    """Counts, encodes and decodes by asking the server."""

    def __init__(self, client: HttpClient, model: str) -> None:
        self._client = client
        self._model = model

    async def count(self, prompt: Prompt) -> tuple[int, int | None]:
        """Tokens of a prompt, template and BOS included, and the model's context."""
        if not isinstance(prompt, (str, Raw)) and prompt and isinstance(prompt[0], int):
            found = await self._ask("tokenize", {"prompt": ""})
            return len(prompt), _limit(found)
        found = await self._ask("tokenize", _fields(prompt))
        if not isinstance(found.get("count"), int):
            raise bad("the server's tokenizer gave no count")
        return found["count"], _limit(found)

    async def prompt(self, prompt: Prompt) -> list[int]:
        """The token ids of any prompt, template and BOS included."""
        if not isinstance(prompt, (str, Raw)) and prompt and isinstance(prompt[0], int):
            return [int(i) for i in prompt]  # type: ignore[arg-type]
        return _ids(await self._ask("tokenize", _fields(prompt)))

    async def encode(self, text: str, *, special: bool) -> list[int]:
        """The token ids of a text, with or without the BOS that the tokenizer adds."""
        return _ids(await self._ask("tokenize", {"prompt": text, "add_special_tokens": special}))

    async def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        found = await self._ask("detokenize", {"tokens": list(ids)})
        if not isinstance(found.get("prompt"), str):
            raise bad("the server's tokenizer gave no text")
        return str(found["prompt"])

    async def _ask(self, route: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        def read(words: str, headers: Mapping[str, str]) -> dict[str, Any]:
            found = parse(words)
            if not isinstance(found, dict):
                raise bad("the server's tokenizer answered no object")
            return found

        body = encode({"model": self._model, **fields})
        return await self._client.fetch(self._client.call(self._client.address.url(f"/{route}"), body), read)


def _fields(prompt: Prompt) -> dict[str, Any]:
    return {"prompt": prompt.text} if isinstance(prompt, Raw) else {"messages": messages(prompt)}


def _ids(found: Mapping[str, Any]) -> list[int]:
    ids = found.get("tokens")
    if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
        raise bad("the server's tokenizer gave no tokens")
    return ids


def _limit(found: Mapping[str, Any]) -> int | None:
    limit = found.get("max_model_len")
    return limit if isinstance(limit, int) else None
