"""Chat and completions."""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from memserve.errors import ContextOverflow, Unsupported
from memserve.http import Call, HttpClient, HttpEngine, StreamReader
from memserve.http.body import bad, parse
from memserve.http.chat import ChatReader, completion, encode, failure_in, fill, messages
from memserve.protocol import (
    DEFAULT_MAX_TOKENS,
    BatchService,
    Capabilities,
    Completion,
    Delta,
    Prompt,
    Raw,
    Request,
    Sample,
    Score,
    ScorePrompts,
    Truncate,
)
from memserve_openai import dialect
from memserve_openai.dialect import EXTRA, Dialect


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


log = logging.getLogger("memserve.openai")
_PLAIN = ("temperature", "top_p", "seed")


class ChatEngine(HttpEngine):
    """Asks {base_url}/chat/completions; raw text and token ids go to {base_url}/completions."""

    route = "chat/completions"

    def __init__(self, client: HttpClient, dialect: Dialect, capabilities: Capabilities) -> None:
        super().__init__(client, capabilities)
        self._dialect = dialect
        self._model = model = capabilities.model or ""
        self._chat_url = client.address.url(self.route)
        self._raw_url = client.address.url("completions")
        self._seen_models = {model}
        self._fingerprint: str | None = None
        self.fills_max_tokens = capabilities.context is not None
        """Where the context is known, a default length never asks for more than it."""

    async def complete(self, request: Request) -> Completion:
        """Answer one request, its prompt cut beforehand where the caller says how."""
        if request.truncate != "refuse":
            request = await fit(request, self._tokens())
        return await super().complete(request)

    async def astream(self, request: Request) -> AsyncIterator[Delta]:
        """Answer one request piece by piece."""
        if request.truncate != "refuse":
            request = await fit(request, self._tokens())
        async for delta in super().astream(request):
            yield delta

    async def acount_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, template and BOS included."""
        return (await self._tokens().count(prompt))[0]

    async def ascore(self, pairs: Sequence[ScorePrompts]) -> list[Score]:
        """The log-likelihood of each continuation."""
        from memserve_openai.scoring import score

        return await score(pairs, self._client, self._tokens(), self._model)

    @property
    def batch_service(self) -> BatchService:
        """The batch service of the server, if it has one."""
        from memserve_openai.batch import Batches

        return Batches(self._client, self)

    def _tokens(self) -> Tokens:
        return Tokens(self._client, self._model)

    @property
    def identity(self) -> Mapping[str, str]:
        return {**super().identity, "dialect": self._dialect.name}

    def write(self, request: Request, *, stream: bool) -> Call:
        raw = _is_raw(request)
        payload = self._payload(request, _prompt(request, raw), raw)
        if self._samples(request) > 1:
            payload["n"] = request.n
        if request.logprobs is not None:
            payload.update({"logprobs": request.logprobs} if raw else _chat_logprobs(request.logprobs))
        self._options(payload, request, stream)
        extra = {name.removeprefix(EXTRA): value for name, value in request.extra.items()}
        payload.update(extra if raw else dialect.thinking_fields(self._dialect, self._model, request, extra))
        return self._client.call(self._raw_url if raw else self._chat_url, encode(payload))

    def read(self, request: Request, words: str, headers: Mapping[str, str]) -> Completion:
        found = parse(words)
        failed = failure_in(found)
        if failed is not None:
            raise self._client.failed(failed, 200, headers)
        answer = self._completion(found, request)
        answer = answer if _is_raw(request) else dialect.cut(answer, self._model, request)
        self._refuse_cut(request, answer)
        if request.n > 1 and not answer.samples:
            answer = replace(answer, samples=(_sample(answer),) * request.n)
        if answer.model not in self._seen_models:
            self._other_model(answer.model)
        fingerprint = found.get("system_fingerprint")
        if fingerprint != self._fingerprint:
            self._other_fingerprint(fingerprint)
        return answer

    def reader(self, request: Request) -> StreamReader:
        plain = ChatReader(lambda words: self._client.failed(words, 200, {}))
        return plain if _is_raw(request) else dialect.ThoughtReader(plain, self._model, request.thinking)

    def _completion(self, found: Any, request: Request) -> Completion:
        return completion(found, n=self._samples(request), logprobs=request.logprobs is not None)

    def _payload(self, request: Request, prompt: Mapping[str, Any], raw: bool = False) -> dict[str, Any]:
        payload: dict[str, Any] = {"model": self._model, **prompt, **self._dialect.always}
        payload.update({name: v for name in _PLAIN if (v := getattr(request, name)) is not None})
        self._lengths(payload, request)
        self._constraint(payload, request, raw)
        return payload

    def _samples(self, request: Request) -> int:
        """How many samples to ask for: greedy ones are all alike, and vLLM refuses to make them."""
        return 1 if request.temperature == 0 and not self._dialect.greedy_n else request.n

    def _length(self, request: Request) -> int | None:
        """The most tokens to ask for; refused where the server would silently make it fewer."""
        cap, context, asked = (
            self._dialect.max_tokens_cap, self.capabilities.context, dialect.longest(request),
        )  # fmt: skip
        if asked is None:
            return min(DEFAULT_MAX_TOKENS, context) if self.fills_max_tokens and context else None
        if cap is not None and asked > cap:
            reason = f"this server stops at {cap}: raise its limit and say so with the option max_tokens_cap"
            raise Unsupported("openai", f"max_tokens={asked}", reason)
        if context is not None and asked >= context:
            raise ContextOverflow(tokens=asked + 1, limit=context)
        return asked

    def _refuse_cut(self, request: Request, answer: Completion) -> None:
        """vLLM shortens an answer to what the prompt leaves: no answer to what was asked."""
        context, asked = self.capabilities.context, dialect.longest(request)
        prompt, made = answer.usage.prompt_tokens, answer.usage.completion_tokens
        if context is None or asked is None or prompt is None or made is None or request.n > 1:
            return
        if answer.finish_reason == "length" and made < asked and prompt + made >= context:
            raise ContextOverflow(tokens=prompt + asked, limit=context, prompt=prompt)

    def _lengths(self, payload: dict[str, Any], request: Request) -> None:
        length = self._length(request)
        if length is not None:
            payload[self._dialect.max_tokens_field] = length
        for name, spelled in (("top_k", self._dialect.top_k), ("min_p", self._dialect.min_p)):
            value = getattr(request, name)
            if value is not None and spelled is not None:
                payload[spelled] = value
        if request.stop:
            payload["stop"] = list(request.stop)

    def _constraint(self, payload: dict[str, Any], request: Request, raw: bool) -> None:
        prefix = "raw_" if raw else ""
        for name in ("schema", "regex", "choices"):
            value = getattr(request, name)
            if value is None:
                continue
            template = getattr(self._dialect, prefix + name)
            if template is None:
                raise Unsupported("openai", name, "not for raw prompts")
            payload.update(fill(template, list(value) if name == "choices" else value))

    def _options(self, payload: dict[str, Any], request: Request, stream: bool) -> None:
        if request.tools:
            payload["tools"] = [dict(tool) for tool in request.tools]
        if request.tool_choice is not None:
            payload["tool_choice"] = request.tool_choice
        if stream:
            payload["stream"] = True
            if self._dialect.stream_options:
                payload["stream_options"] = {"include_usage": True}
        elif self._dialect.token_id_field:
            payload[self._dialect.token_id_field] = True

    def _other_fingerprint(self, fingerprint: Any) -> None:
        """The provider changed the system behind the model's name: answers before and after may differ."""
        if isinstance(fingerprint, str):
            if self._fingerprint is not None:
                log.warning("the system fingerprint of model %r changed during the run", self._model)
            self._fingerprint = fingerprint

    def _other_model(self, answered: str | None) -> None:
        """A router may answer with another model: that is warned of once, and the answer carries its name."""
        if answered is None:
            return
        self._seen_models.add(answered)
        asked, got = self._model.rpartition("/")[2].lower(), answered.rpartition("/")[2].lower()
        if not got.startswith(asked):
            log.warning("asked for model %r, answered by %r", self._model, self._client.mask(answered))


def _sample(answer: Completion) -> Sample:
    return Sample(**{part.name: getattr(answer, part.name) for part in fields(Sample)})


def _is_raw(request: Request) -> bool:
    prompt = request.prompt
    return isinstance(prompt, Raw) or (not isinstance(prompt, str) and isinstance(prompt[0], int))


def _prompt(request: Request, raw: bool) -> dict[str, Any]:
    if not raw:
        return {"messages": messages(request.prompt)}
    return {"prompt": request.prompt.text if isinstance(request.prompt, Raw) else request.prompt}


def _chat_logprobs(most: int) -> dict[str, Any]:
    return {"logprobs": True, "top_logprobs": most} if most else {"logprobs": True}


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
        raise ContextOverflow(tokens=count + limit - space, limit=limit, prompt=count)
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
    raise ContextOverflow(tokens=count + limit - space, limit=limit, prompt=count)
