"""The adapter between memserve's requests and the toy model: the part that a backend's author writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from memserve.errors import ContextOverflow, InvalidInput, MemserveError, ModelUnreadable
from memserve.protocol import (
    Capabilities,
    Completion,
    Delta,
    Prompt,
    Raw,
    Request,
    Sample,
    Score,
    ScorePrompts,
    Task,
    TokenLogprob,
    ToolCall,
    Usage,
)
from memserve_toy import model

THOUGHT = 8
"""Tokens of a thought that nobody bounds."""
capabilities = Capabilities(backend="toy", tasks=frozenset({"generate", "embed", "rerank"}))
"""At best; the engine that is opened knows more."""


def open_engine(model: str | None = None, *, task: Task = "generate", api_key: str | None = None) -> Any:
    """Start the engine; a real one would raise BackendMissing where its package is not installed.

    The toy needs neither weights nor a key: a folder must only be there, and a key is not kept.
    """
    if model is not None and not (Path(model) / "tokenizer.json").exists():
        raise ModelUnreadable(f"{model}: no tokenizer.json in it", path=model)
    if task == "generate":
        return ToyEngine()
    from memserve_toy.vectors import ToyEmbedder

    return ToyEmbedder()


class ToyEngine:
    """Satisfies memserve.protocol.BatchEngine."""

    prefix_token = model.BOS

    def __init__(self) -> None:
        self.score_window = model.CONTEXT - 1
        self.capabilities = Capabilities(
            backend="toy", engine="toy 1.0", device="cpu", context=model.CONTEXT, chat=True,
            temperature=True, top_p=True, max_tokens=True, stop=True, usage=True, raw=True, token_ids=True,
            top_k=True, min_p=True, seed=True, n=True, logprobs=20, score=True, schema=True, choices=True,
            truncate=True, stream=True, returns_token_ids=True, deterministic=True, count_tokens=True,
            tokenizer=True, tools=True, images=True, thinking=frozenset({"on", "off", "budget"}),
        )  # fmt: skip

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer each request; one that fails comes back with its error."""
        return [self._answer(request) for request in requests]

    def stream(self, request: Request) -> Iterator[Delta]:
        """The same answer in pieces."""
        whole = self._answer(request)
        if whole.error:
            raise whole.error
        text, thought = whole.text or "", whole.reasoning or ""
        for at in range(0, len(thought), 2):
            yield Delta(reasoning=thought[at : at + 2])
        for at in range(0, len(text), 2):
            yield Delta(text[at : at + 2])
        yield Delta("", whole.finish_reason, whole.usage, tool_calls=whole.tool_calls)

    def score(self, pairs: Sequence[ScorePrompts]) -> list[Score]:
        """The log-likelihood of each continuation; a context's trailing space belongs to what follows."""
        return [_score(context, continuation) for context, continuation in pairs]

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, template included."""
        return len(_tokens(prompt))

    def encode(self, text: str) -> list[int]:
        """Bytes are tokens."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Bytes back to text."""
        return model.decode(ids)

    def close(self) -> None:
        """Nothing is held."""

    def _answer(self, request: Request) -> Completion:
        try:
            return _complete(request)
        except MemserveError as error:
            return Completion(text=None, error=error)


def _complete(request: Request) -> Completion:
    limit, budget = (
        request.max_tokens or 0,
        THOUGHT if request.thinking is True else int(request.thinking or 0),
    )
    tokens = _fit(_told(request) + _tokens(request.prompt), limit + budget, request.truncate)
    thought = [
        token for token, _ in model.continue_text(tokens, budget, model.Sampling()) if token < model.BOS
    ]
    before = [*tokens, *thought, model.EOS] if thought else tokens
    answers = [_sample(request, before, limit, index) for index in range(request.n)]
    if thought:
        words = model.decode(thought)
        answers = [(replace(one, reasoning=words), len(thought) + count) for one, count in answers]
    first, used = answers[0][0], sum(count for _, count in answers)
    return Completion(
        text=first.text, finish_reason=first.finish_reason, token_ids=first.token_ids,
        logprobs=first.logprobs, tool_calls=first.tool_calls, reasoning=first.reasoning,
        usage=Usage(len(tokens), used, 0, len(thought) * request.n or None),
        samples=tuple(sample for sample, _ in answers) if request.n > 1 else (), model="toy",
    )  # fmt: skip


def _told(request: Request) -> list[int]:
    """The tools, as the toy reads them: their names and their parameters'."""
    allowed = request.tools if request.tool_choice != "none" else ()
    told = [tool["function"] for tool in allowed]
    return [
        token
        for one in told
        for token in f"{one['name']}{list(one.get('parameters', {}).get('properties', ()))}".encode()
    ]


def _called(request: Request) -> dict[str, Any] | None:
    """The tool that the toy calls: the first where it must call one, or is asked with a please."""
    known = {tool["function"]["name"]: tool["function"] for tool in request.tools}
    choice = request.tool_choice or "auto"
    if isinstance(choice, Mapping):
        if choice["function"]["name"] not in known:
            raise InvalidInput(f"tool_choice: no tool is called {choice['function']['name']!r}")
        return known[choice["function"]["name"]]
    wanted = choice == "required" or (choice == "auto" and str(request.prompt).endswith("please."))
    return next(iter(known.values()), None) if wanted else None


def _tokens(prompt: Prompt) -> list[int]:
    if isinstance(prompt, Raw):
        return model.encode(prompt.text)
    if isinstance(prompt, str):
        return model.render([{"role": "user", "content": prompt}])
    if all(isinstance(part, int) for part in prompt):
        return [int(part) for part in prompt]  # type: ignore[arg-type]
    return model.render([part for part in prompt if isinstance(part, Mapping)])


def _fit(tokens: list[int], limit: int, policy: str) -> list[int]:
    over = len(tokens) + limit - model.CONTEXT
    if over <= 0:
        return tokens
    if policy == "refuse" or limit >= model.CONTEXT:
        raise ContextOverflow(tokens=len(tokens) + limit, limit=model.CONTEXT, prompt=len(tokens))
    if policy == "left":
        return tokens[over:]
    keep = len(tokens) - over
    return tokens[: keep // 2] + tokens[len(tokens) - (keep - keep // 2) :]


def _sample(request: Request, tokens: list[int], limit: int, index: int) -> tuple[Sample, int]:
    if tool := _called(request):
        made = json.dumps(_instance(tool.get("parameters", {"type": "object"})))
        call = ToolCall(f"call{index}", tool["name"], made)
        return Sample(None, "tool_calls", tuple(made.encode()), tool_calls=(call,)), len(made.encode())
    if request.schema is not None or request.choices:
        return _constrained(request, tokens)
    seed = None if request.seed is None else request.seed + index
    sampling = model.Sampling(
        request.temperature or 0.0, request.top_p if request.top_p is not None else 1.0,
        request.top_k or 0, request.min_p or 0.0, seed,
    )  # fmt: skip
    ids: list[int] = []
    rows: list[list[float]] = []
    for token, row in model.continue_text(tokens, limit, sampling):
        ids.append(token)
        rows.append(row)
        if _stopped(model.decode(ids), request.stop) is not None:
            break
    return _finished(request, ids, rows), len(ids)


def _stopped(text: str, stops: Sequence[str]) -> int | None:
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return min(found, default=None)


def _finished(request: Request, ids: list[int], rows: list[list[float]]) -> Sample:
    text = model.decode(ids)
    cut = _stopped(text, request.stop)
    ended = cut is not None or ids[-1:] == [model.EOS]
    entries = tuple(_entry(t, row, request.logprobs or 0) for t, row in zip(ids, rows, strict=True))
    return Sample(
        text=text if cut is None else text[:cut], finish_reason="stop" if ended else "length",
        token_ids=tuple(ids), logprobs=None if request.logprobs is None else entries,
    )  # fmt: skip


def _entry(token: int, row: list[float], top: int) -> TokenLogprob:
    best = sorted(range(len(row)), key=row.__getitem__, reverse=True)[:top]
    rivals = tuple((model.decode([t]), row[t]) for t in best)
    return TokenLogprob(model.decode([token]), row[token], token, rivals)


def _constrained(request: Request, tokens: list[int]) -> tuple[Sample, int]:
    if request.choices:
        text = max(request.choices, key=lambda choice: _of_ids(tokens, choice.encode()).logprob)
    else:
        text = json.dumps(_instance(request.schema or {}))
    return Sample(text, "stop", tuple(text.encode())), len(text.encode())


def _instance(schema: Mapping[str, Any]) -> Any:
    """The smallest value that a schema allows."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        return {name: _instance(part) for name, part in schema.get("properties", {}).items()}
    simple = {"string": "", "integer": 0, "number": 0, "boolean": True, "array": [], "null": None}
    if kind not in simple:
        raise InvalidInput(f"schema: type {kind!r} is not one that the toy knows")
    return simple[kind]


def _score(context: Prompt, continuation: str | Sequence[int]) -> Score:
    if not isinstance(context, str) or not isinstance(continuation, str):
        before = model.encode(context) if isinstance(context, str) else _tokens(context)
        more = continuation.encode() if isinstance(continuation, str) else continuation
        return _of_ids(before, more)
    spaces = re.search(r"\s*$", context)
    tail = spaces.group() if spaces else ""
    tokens = model.encode(context[: len(context) - len(tail)])
    return _of_ids(tokens, (tail + continuation).encode())


def _of_ids(tokens: list[int], more: Sequence[int]) -> Score:
    if len(tokens) + len(more) > model.CONTEXT:
        raise ContextOverflow(tokens=len(tokens) + len(more), limit=model.CONTEXT, prompt=len(tokens))
    told = _each(tokens, more)
    greedy = all(one.logprob == one.top[0][1] for one in told)
    return Score(sum(one.logprob or 0.0 for one in told), len(more), greedy, told)


def _each(tokens: list[int], more: Sequence[int]) -> tuple[TokenLogprob, ...]:
    rows = (model.logprobs([*tokens, *more[:place]]) for place in range(len(more)))
    return tuple(_entry(token, row, 1) for token, row in zip(more, rows, strict=True))
