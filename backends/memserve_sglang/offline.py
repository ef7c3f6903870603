"""SGLang's `Engine` as a memserve engine: in a process of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

from memserve.errors import Closed, EngineFailed, MemserveError
from memserve.protocol import (
    Completion,
    Delta,
    FinishReason,
    Request,
    Sample,
    Score,
    ScorePrompts,
    TokenLogprob,
    Usage,
)
from memserve.tokens.drawing import Told
from memserve.tokens.grammar import bounds_thoughts, check_schema, structural_tag
from memserve.tokens.prompts import Prepared, Prompts, ScorePair, Tokenizing
from memserve_sglang.engine import capabilities
from memserve_sglang.host import Host

_Row: TypeAlias = tuple[Prepared, dict[str, Any], int | None]
"""What one row of a call asks: prompt, settings, log-probabilities."""


class Offline(Tokenizing):
    """Satisfies memserve.protocol.BatchEngine: SGLang schedules whatever one call brings."""

    fills_max_tokens = True
    _unscored = 2
    """SGLang reads the last token, too, and takes no prompt as long as its context."""

    def __init__(self, host: Host, model: str) -> None:
        self._host: Host | None = host
        facts = host.facts
        engine = f"sglang {facts['version']}"
        self.identity = {"model": model, "engine": engine, "dtype": facts["dtype"]}
        self._prompts = Prompts(
            _tokenizer(facts), vocabulary=facts["vocabulary"], context=facts["context"], path=model,
            backend="sglang",
        )  # fmt: skip
        self.capabilities = replace(
            capabilities, engine=engine, model=model, device=facts["device"], tasks=frozenset({"generate"}),
            context=facts["context"], chat=self._prompts.chat,
            thinking=self._prompts.thinking_modes - (set() if bounds_thoughts() else {"budget"}),
            template=self._prompts.chat, tools=self._prompts.family is not None,
            deterministic=facts["exact"], seed=facts["seed"], extras=EXTRAS, roles=frozenset(),
            normalize=False, dimensions=False,
        )  # fmt: skip

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any]) -> Offline:
        """Start SGLang and prove the chat template."""
        host = Host(model, options)
        try:
            engine = cls(host, model)
            engine._prompts.prove()
        except BaseException:
            host.close()
            raise
        return engine

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests in one call; n samples are n rows, each with a seed of its own."""
        ready = [self._ready(request) for request in requests]
        rows = [row for one in ready if not isinstance(one, Completion) for row in one]
        outputs = iter(self._run(rows))
        return [
            one
            if isinstance(one, Completion)
            else self._completion(request, one[0][0], [next(outputs) for _ in one])
            for request, one in zip(requests, ready, strict=True)
        ]

    def stream(self, request: Request) -> Iterator[Delta]:
        """The answer piece by piece."""
        prepared, sent = self._prompts.prepare(request), 0
        parts = self._prompts.detokenizer(request, prepared, live=True) if prepared.parted else None
        settings = sampling(request, prepared)
        for chunk in self._alive().stream(input_ids=prepared.ids, sampling_params=settings):
            finish, spent = reason(chunk)[1], usage([chunk])
            if parts is not None:
                new, sent = chunk["output_ids"][sent:], len(chunk["output_ids"])
                yield parts.read(new, finish, spent)
                if parts.stopped:
                    return
                continue
            text, sent = chunk["text"][sent:], max(sent, len(chunk["text"]))
            yield Delta(text, finish, spent if finish else None)

    def score(self, pairs: Sequence[ScorePrompts]) -> list[Score]:
        """Log-likelihoods from the prompt's own log-probabilities."""
        ready = self._pairs(pairs)
        outputs = self._alive().call(
            "generate", input_ids=[list(pair.tokens) for pair in ready],
            sampling_params={"max_new_tokens": 0, "temperature": 0.0},
            return_logprob=True, logprob_start_len=[pair.start - 1 for pair in ready], top_logprobs_num=1,
        )  # fmt: skip
        return [
            _score(pair, one["meta_info"], self._prompts.tokenizer)
            for pair, one in zip(ready, outputs, strict=True)
        ]

    def close(self) -> None:
        """End the child processes."""
        host, self._host = self._host, None
        if host is not None:
            host.close()

    def _alive(self) -> Host:
        if self._host is None:
            raise Closed("this engine is closed")
        return self._host

    def _ready(self, request: Request) -> list[_Row] | Completion:
        try:
            prepared = self._prompts.prepare(request)
            count = request.n if request.temperature else 1
            return [(prepared, sampling(request, prepared, n), request.logprobs) for n in range(count)]
        except MemserveError as error:
            return Completion(text=None, error=error, request_id=request.id)

    def _run(self, rows: Sequence[_Row]) -> list[Any]:
        if not rows:
            return []
        answered: list[Any] = self._alive().call(
            "generate", input_ids=[prepared.ids for prepared, _, _ in rows],
            sampling_params=[settings for _, settings, _ in rows],
            return_logprob=[top is not None for _, _, top in rows],
            top_logprobs_num=[top or 0 for _, _, top in rows],
        )  # fmt: skip
        return answered

    def _completion(self, request: Request, prepared: Prepared, outputs: Sequence[Any]) -> Completion:
        """The outputs of one request, a sample each."""
        broken = next((o for o in outputs if reason(o)[0] == "abort"), None)
        if broken is not None:
            words = str(broken["meta_info"]["finish_reason"].get("message", "aborted"))
            return Completion(text=None, error=EngineFailed(f"SGLang gave the request up: {words}"))
        parts = [self._apart(request, prepared, _sample(request, one, self._decode)) for one in outputs]
        return self._joined(request, parts, usage(outputs))

    def _decode(self, token: int) -> str:
        return str(self._prompts.tokenizer.decode([token]))


def _score(pair: ScorePair, told: Any, tokenizer: Any) -> Score:
    chosen = told["input_token_logprobs"][-pair.count :]
    best = told["input_top_logprobs"][-pair.count :]
    greedy = all(top and top[0][1] == one[1] for one, top in zip(chosen, best, strict=True))
    rows = [(one[1], one[0], top[0][1], top[0][0]) for one, top in zip(chosen, best, strict=True) if top]
    words = Told(tokenizer, *zip(*rows, strict=True)) if len(rows) == pair.count else ()
    return Score(sum(float(one[0]) for one in chosen), pair.count, greedy, words)


def _tokenizer(facts: Mapping[str, Any]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(facts["tokenizer"], trust_remote_code=facts["trust_remote_code"])


_REASONS = {"stop": "stop", "length": "length"}


def usage(outputs: Sequence[Any]) -> Usage:
    """Tokens as SGLang counted them, all samples together."""
    told = [output["meta_info"] for output in outputs]
    return Usage(
        prompt_tokens=told[0]["prompt_tokens"],
        completion_tokens=sum(one["completion_tokens"] for one in told),
        cached_tokens=told[0].get("cached_tokens"),
    )


def reason(output: Any) -> tuple[str, FinishReason | None]:
    """SGLang's word for why an answer ended, and memserve's."""
    told = output["meta_info"].get("finish_reason") or {}
    kind = str(told.get("type", ""))
    return kind, cast("FinishReason | None", _REASONS.get(kind))


def _sample(request: Request, output: Any, decode: Callable[[int], str]) -> Sample:
    told = None
    if request.logprobs is not None:
        chosen = output["meta_info"]["output_token_logprobs"]
        rivals = output["meta_info"].get("output_top_logprobs") or [()] * len(chosen)
        told = tuple(_entry(one, top, decode) for one, top in zip(chosen, rivals, strict=False))
    ids = tuple(output["output_ids"])
    return Sample(text=output["text"], finish_reason=reason(output)[1], token_ids=ids, logprobs=told)


def _entry(chosen: Any, rivals: Any, decode: Callable[[int], str]) -> TokenLogprob:
    logprob, token = chosen[0], chosen[1]
    top = tuple((decode(one[1]), float(one[0])) for one in rivals or ())
    return TokenLogprob(decode(token), float(logprob), token, top)


PREFIX = "sglang_"
EXTRAS = frozenset({
    "sglang_frequency_penalty", "sglang_presence_penalty", "sglang_repetition_penalty",
    "sglang_min_new_tokens", "sglang_ignore_eos", "sglang_stop_token_ids", "sglang_ebnf",
    "sglang_structural_tag",
})  # fmt: skip


def sampling(request: Request, prepared: Prepared, index: int = 0) -> dict[str, Any]:
    """Everything that the request says; SGLang's own default length is 128."""
    own = {name.removeprefix(PREFIX): value for name, value in request.extra.items()}
    asked: dict[str, Any] = {
        "max_new_tokens": prepared.most, "temperature": request.temperature or 0.0,
        "top_p": 1.0 if request.top_p is None else request.top_p, "top_k": request.top_k or -1,
        "min_p": request.min_p or 0.0, **_structured(request, prepared), **own,
    }  # fmt: skip
    if request.stop and not prepared.parted:
        asked["stop"] = list(request.stop)
    if request.seed is not None:
        asked["sampling_seed"] = request.seed + index
    return asked


def _structured(request: Request, prepared: Prepared) -> dict[str, str]:
    """The grammar. A thought, and calls, stand outside of what binds the answer: a structural tag says so."""
    if request.schema is not None:
        check_schema(request.schema)
    if prepared.parted:
        tag = structural_tag(request, prepared, thought=True)
        return {"structural_tag": json.dumps(tag)} if tag else {}
    if request.schema is not None:
        return {"json_schema": json.dumps(request.schema)}
    if request.regex is not None:
        return {"regex": request.regex}
    if request.choices is not None:
        return {"regex": "(" + "|".join(re.escape(choice) for choice in request.choices) + ")"}
    return {}
