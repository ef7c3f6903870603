"""SGLang's `Engine` as a memserve engine: in a process of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memserve.errors import Closed, MemserveError
from memserve.protocol import Completion, Delta, Score
from memserve.tokens.prompts import Prompts
from memserve.tokens.tokenizing import Tokenizing
from memserve_sglang import answers, params
from memserve_sglang.capabilities import capabilities
from memserve_sglang.host import Host

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from memserve.protocol import Request, ScorePrompts
    from memserve.tokens.score_pair import ScorePair


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
            context=facts["context"], chat=self._prompts.chat, deterministic=facts["exact"],
            seed=facts["seed"], extras=params.EXTRAS, roles=frozenset(), normalize=False, dimensions=False,
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
            one if isinstance(one, Completion) else self._completion(request, [next(outputs) for _ in one])
            for request, one in zip(requests, ready, strict=True)
        ]

    def stream(self, request: Request) -> Iterator[Delta]:
        """The answer piece by piece."""
        ids, limit = self._prompts.fit(self._prompts.encode(request.prompt), request)
        sent = 0
        chunks = self._alive().stream(input_ids=ids, sampling_params=params.sampling(request, limit))
        for chunk in chunks:
            text, sent = chunk["text"][sent:], max(sent, len(chunk["text"]))
            finish = answers.reason(chunk)[1]
            yield Delta(text, finish, answers.usage([chunk]) if finish else None)

    def score(self, pairs: Sequence[ScorePrompts]) -> list[Score]:
        """Log-likelihoods from the prompt's own log-probabilities."""
        ready = self._pairs(pairs)
        outputs = self._alive().call(
            "generate", input_ids=[list(pair.tokens) for pair in ready],
            sampling_params={"max_new_tokens": 0, "temperature": 0.0},
            return_logprob=True, logprob_start_len=[pair.start - 1 for pair in ready], top_logprobs_num=1,
        )  # fmt: skip
        return [_score(pair, one["meta_info"]) for pair, one in zip(ready, outputs, strict=True)]

    def close(self) -> None:
        """End the child processes."""
        host, self._host = self._host, None
        if host is not None:
            host.close()

    def _alive(self) -> Host:
        if self._host is None:
            raise Closed("this engine is closed")
        return self._host

    def _ready(self, request: Request) -> list[tuple[list[int], dict[str, Any], int | None]] | Completion:
        try:
            ids, limit = self._prompts.fit(self._prompts.encode(request.prompt), request)
            count = request.n if request.temperature else 1
            return [(ids, params.sampling(request, limit, n), request.logprobs) for n in range(count)]
        except MemserveError as error:
            return Completion(text=None, error=error, request_id=request.id)

    def _run(self, rows: Sequence[tuple[list[int], dict[str, Any], int | None]]) -> list[Any]:
        if not rows:
            return []
        answered: list[Any] = self._alive().call(
            "generate", input_ids=[ids for ids, _, _ in rows],
            sampling_params=[settings for _, settings, _ in rows],
            return_logprob=[top is not None for _, _, top in rows],
            top_logprobs_num=[top or 0 for _, _, top in rows],
        )  # fmt: skip
        return answered

    def _completion(self, request: Request, outputs: Sequence[Any]) -> Completion:
        model = self.capabilities.model or ""
        return answers.completion(request, outputs, model, self._decode)

    def _decode(self, token: int) -> str:
        return str(self._prompts.tokenizer.decode([token]))


def _score(pair: ScorePair, told: Any) -> Score:
    chosen = told["input_token_logprobs"][-pair.count :]
    best = told["input_top_logprobs"][-pair.count :]
    greedy = all(top and top[0][1] == one[1] for one, top in zip(chosen, best, strict=True))
    return Score(sum(float(one[0]) for one in chosen), pair.count, greedy)


def _tokenizer(facts: Mapping[str, Any]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(facts["tokenizer"], trust_remote_code=facts["trust_remote_code"])
