"""vLLM's `LLM` in this process, as a memserve engine."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from memserve.errors import MemserveError
from memserve.protocol import Completion, Delta, Score
from memserve.tokens.prompts import Prompts
from memserve.tokens.tokenizing import Tokenizing
from memserve_vllm import adapter, answers, params, starting
from memserve_vllm.capabilities import capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from memserve.protocol import Capabilities, Request, ScorePrompts
    from memserve.tokens.score_pair import ScorePair


class Offline(Tokenizing):
    """Satisfies memserve.protocol.BatchEngine: vLLM schedules whatever one call brings."""

    fills_max_tokens = True
    _unscored = 2
    """vLLM reads the last token, too, and cannot score without generating one."""

    def __init__(self, llm: Any, model: str, version: str, adapted: str | None = None) -> None:
        config = llm.llm_engine.vllm_config.model_config
        self._llm, self._version = llm, version
        self._numbers, self._adapter = count(), adapter.request(adapted)
        self.identity = {"model": model, "engine": f"vllm {version}", "dtype": str(config.dtype)}
        if adapted:
            self.identity["adapter"] = adapted
        self._prompts = Prompts(
            llm.get_tokenizer(), vocabulary=config.get_vocab_size(), context=config.max_model_len,
            path=model, backend="vllm",
        )  # fmt: skip
        self.capabilities = _known(model, version, config, self._prompts)

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any]) -> Offline:
        """Start vLLM, with the option `adapter` beside its own, and prove the chat template."""
        import vllm

        own = dict(options)
        adapted = own.pop("adapter", None)
        beside = adapter.room(str(adapted)) if adapted else {}
        llm = starting.start(model, own, **beside)
        engine = cls(llm, model, vllm.__version__, str(adapted) if adapted else None)
        engine._prompts.prove()
        return engine

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests in one call of vLLM; a request that cannot be asked carries its error."""
        ready = [self._ready(request) for request in requests]
        asked = [one for one in ready if not isinstance(one, Completion)]
        outputs = iter(self._run([ids for ids, _ in asked], [settings for _, settings in asked]))
        model = self.capabilities.model or ""
        return [
            one if isinstance(one, Completion) else answers.completion(request, next(outputs), model)
            for request, one in zip(requests, ready, strict=True)
        ]

    def stream(self, request: Request) -> Iterator[Delta]:
        """The answer piece by piece, by stepping the engine; closing the iterator gives the request up."""
        from vllm.sampling_params import RequestOutputKind

        ids, limit = self._prompts.fit(self._prompts.encode(request.prompt), request)
        settings = params.sampling(request, limit, self._version, output_kind=RequestOutputKind.CUMULATIVE)
        name, engine, sent = f"memserve-{next(self._numbers)}", self._llm.llm_engine, 0
        engine.add_request(name, {"prompt_token_ids": ids}, settings, lora_request=self._adapter)
        finished = False
        try:
            while not finished and engine.has_unfinished_requests():
                for output in engine.step():
                    one, finished = output.outputs[0], output.finished
                    text, sent = one.text[sent:], max(sent, len(one.text))
                    yield Delta(
                        text, answers.finish(one.finish_reason), answers.usage(output) if finished else None
                    )
        finally:
            if not finished:
                engine.abort_request([name])

    def score(self, pairs: Sequence[ScorePrompts]) -> list[Score]:
        """Log-likelihoods from the prompt's own log-probabilities."""
        from vllm import SamplingParams

        ready = self._pairs(pairs)
        settings = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1, detokenize=False)
        outputs = self._run([list(pair.tokens) for pair in ready], [settings] * len(ready))
        return [_score(pair, output.prompt_logprobs) for pair, output in zip(ready, outputs, strict=True)]

    def close(self) -> None:
        """End the engine and give its memory back."""
        llm, self._llm = self._llm, None
        if llm is not None:
            starting.stop(llm)

    def _ready(self, request: Request) -> tuple[list[int], Any] | Completion:
        try:
            ids, limit = self._prompts.fit(self._prompts.encode(request.prompt), request)
            return ids, params.sampling(request, limit, self._version)
        except MemserveError as error:
            return Completion(text=None, error=error, request_id=request.id)

    def _run(self, prompts: Sequence[list[int]], settings: Sequence[Any]) -> list[Any]:
        if not prompts:
            return []
        asked = [{"prompt_token_ids": ids} for ids in prompts]
        return list(self._llm.generate(asked, list(settings), use_tqdm=False, lora_request=self._adapter))


def _score(pair: ScorePair, told: Any) -> Score:
    total, greedy = 0.0, True
    for place in range(pair.start, len(pair.tokens)):
        said = told[place][pair.tokens[place]]
        total += said.logprob
        greedy = greedy and said.rank == 1
    return Score(total, pair.count, greedy)


def _known(model: str, version: str, config: Any, prompts: Prompts) -> Capabilities:
    import os

    from vllm.platforms import current_platform

    exact = "float32" in str(config.dtype) or os.environ.get("VLLM_BATCH_INVARIANT") == "1"
    return replace(
        capabilities, engine=f"vllm {version}", model=model, device=current_platform.device_type,
        tasks=frozenset({"generate"}), context=config.max_model_len, chat=prompts.chat,
        logprobs=config.max_logprobs, deterministic=exact, extras=params.extras(),
        roles=frozenset(), normalize=False, dimensions=False,
    )  # fmt: skip
