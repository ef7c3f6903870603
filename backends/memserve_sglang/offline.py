"""SGLang's `Engine` as a memserve engine: its scheduler runs in child processes of this one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from memserve.errors import MemserveError
from memserve.protocol import Completion, Delta, Score
from memserve.tokens.pair import prepare
from memserve.tokens.prompts import Prompts
from memserve_sglang import answers, params, starting
from memserve_sglang.engine import capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from memserve.protocol import Capabilities, Prompt, Request
    from memserve.tokens.pair import Pair


class Offline:
    """Satisfies memserve.protocol.BatchEngine: SGLang schedules whatever one call brings."""

    fills_max_tokens = True

    def __init__(self, engine: Any, model: str, version: str) -> None:
        self._engine = engine
        manager = engine.tokenizer_manager
        config = manager.model_config
        self.identity = {"model": model, "engine": f"sglang {version}", "dtype": str(config.dtype)}
        self._prompts = Prompts(
            manager.tokenizer, vocabulary=config.vocab_size, context=config.context_len, path=model,
            backend="sglang",
        )  # fmt: skip
        self.capabilities = _known(model, version, engine.server_args, config, self._prompts)

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any]) -> Offline:
        """Start SGLang and prove the chat template."""
        import sglang

        engine = cls(starting.start(model, options), model, sglang.__version__)
        engine._prompts.prove()
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
        chunks = self._engine.generate(
            input_ids=ids, sampling_params=params.sampling(request, limit), stream=True
        )
        for chunk in chunks:
            text, sent = chunk["text"][sent:], max(sent, len(chunk["text"]))
            finish = answers.reason(chunk)[1]
            yield Delta(text, finish, answers.usage([chunk]) if finish else None)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """Log-likelihoods from the prompt's own log-probabilities."""
        ready = [prepare(self._prompts, context, continuation) for context, continuation in pairs]
        outputs = self._engine.generate(
            input_ids=[list(pair.tokens) for pair in ready],
            sampling_params={"max_new_tokens": 0, "temperature": 0.0},
            return_logprob=True, logprob_start_len=[pair.start - 1 for pair in ready], top_logprobs_num=1,
        )  # fmt: skip
        return [_score(pair, one["meta_info"]) for pair, one in zip(ready, outputs, strict=True)]

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, template and BOS included."""
        return len(self._prompts.encode(prompt))

    def close(self) -> None:
        """End the child processes."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.shutdown()

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
        return list(
            self._engine.generate(
                input_ids=[ids for ids, _, _ in rows],
                sampling_params=[settings for _, settings, _ in rows],
                return_logprob=[top is not None for _, _, top in rows],
                top_logprobs_num=[top or 0 for _, _, top in rows],
            )
        )

    def _completion(self, request: Request, outputs: Sequence[Any]) -> Completion:
        model = self.capabilities.model or ""
        return answers.completion(request, outputs, model, self._decode)

    def _decode(self, token: int) -> str:
        return str(self._prompts.tokenizer.decode([token]))


def _score(pair: Pair, told: Any) -> Score:
    chosen = told["input_token_logprobs"][-pair.count :]
    best = told["input_top_logprobs"][-pair.count :]
    greedy = all(top and top[0][1] == one[1] for one, top in zip(chosen, best, strict=True))
    return Score(sum(float(one[0]) for one in chosen), pair.count, greedy)


def _known(model: str, version: str, args: Any, config: Any, prompts: Prompts) -> Capabilities:
    exact = "float32" in str(config.dtype) or bool(args.enable_deterministic_inference)
    return replace(
        capabilities, engine=f"sglang {version}", model=model, device=args.device,
        tasks=frozenset({"generate"}), context=config.context_len, chat=prompts.chat, deterministic=exact,
        seed=bool(args.enable_deterministic_inference), extras=params.EXTRAS, roles=frozenset(),
        normalize=False, dimensions=False,
    )  # fmt: skip
