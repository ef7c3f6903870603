"""vLLM's `LLM` in this process, as a memserve engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, cast

from memserve.errors import InvalidInput, MemserveError
from memserve.protocol import (
    Capabilities,
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
from memserve_vllm import starting
from memserve_vllm.engine import capabilities
from memserve_vllm.starting import spelling


class Offline(Tokenizing):
    """Satisfies memserve.protocol.BatchEngine: vLLM schedules whatever one call brings."""

    fills_max_tokens = True
    _unscored = 2
    """vLLM reads the last token, too, and cannot score without generating one."""

    def __init__(self, llm: Any, model: str, version: str, adapted: str | None = None) -> None:
        config = llm.llm_engine.vllm_config.model_config
        self._llm, self._version = llm, version
        self._numbers, self._adapter = count(), starting.request(adapted)
        self.identity = {"model": model, "engine": f"vllm {version}", "dtype": str(config.dtype)}
        if adapted:
            self.identity["adapter"] = adapted
        self._prompts = Prompts(
            llm.get_tokenizer(), vocabulary=config.get_vocab_size(), context=config.max_model_len,
            path=model, backend="vllm",
        )  # fmt: skip
        if hasattr(config.hf_config, "vision_config") and config.is_multimodal_model:
            self._prompts.reader = partial(self._show, config)
        self.capabilities = _known(model, version, config, self._prompts)

    @classmethod
    def open(cls, model: str, options: Mapping[str, Any]) -> Offline:
        """Start vLLM, with the option `adapter` beside its own, and prove the chat template."""
        import vllm

        own = dict(options)
        adapted = own.pop("adapter", None)
        beside = starting.limits(str(adapted)) if adapted else {}
        llm = starting.start(model, own, **beside)
        engine = cls(llm, model, vllm.__version__, str(adapted) if adapted else None)
        engine._prompts.prove()
        return engine

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer all requests in one call of vLLM; a request that cannot be asked carries its error."""
        ready = [self._ready(request) for request in requests]
        asked = [one for one in ready if not isinstance(one, Completion)]
        outputs = iter(self._run([_asked(one) for one, _ in asked], [settings for _, settings in asked]))
        return [
            one if isinstance(one, Completion) else self._completion(request, one[0], next(outputs))
            for request, one in zip(requests, ready, strict=True)
        ]

    def stream(self, request: Request) -> Iterator[Delta]:
        """The answer piece by piece, by stepping the engine; closing the iterator gives the request up."""
        from vllm.sampling_params import RequestOutputKind

        prepared = self._prompts.prepare(request)
        settings = sampling(request, prepared, self._version, output_kind=RequestOutputKind.CUMULATIVE)
        name, engine, sent = f"memserve-{next(self._numbers)}", self._llm.llm_engine, 0
        engine.add_request(name, _asked(prepared), settings, lora_request=self._adapter)
        parts = self._prompts.detokenizer(request, prepared, live=True) if prepared.parted else None
        finished = False
        try:
            while not finished and engine.has_unfinished_requests():
                for output in engine.step():
                    one, finished = output.outputs[0], output.finished
                    reason = finish(one.finish_reason) if finished else None
                    if parts is not None:
                        new, sent = one.token_ids[sent:], len(one.token_ids)
                        yield parts.read(new, reason, usage(output))
                        if parts.stopped:
                            return
                        continue
                    text, sent = one.text[sent:], max(sent, len(one.text))
                    yield Delta(text, reason, usage(output) if finished else None)
        finally:
            if not finished:
                engine.abort_request([name])

    def score(self, pairs: Sequence[ScorePrompts]) -> list[Score]:
        """Log-likelihoods from the prompt's own log-probabilities."""
        from vllm import SamplingParams

        ready = self._pairs(pairs)
        settings = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1, detokenize=False)
        asked = [{"prompt_token_ids": list(pair.tokens)} for pair in ready]
        outputs = self._run(asked, [settings] * len(ready))
        return [
            _score(pair, output.prompt_logprobs, self._prompts.tokenizer)
            for pair, output in zip(ready, outputs, strict=True)
        ]

    def close(self) -> None:
        """End the engine and give its memory back."""
        llm, self._llm = self._llm, None
        if llm is not None:
            starting.stop(llm)

    def _ready(self, request: Request) -> tuple[Prepared, Any] | Completion:
        try:
            prepared = self._prompts.prepare(request)
            return prepared, sampling(request, prepared, self._version)
        except MemserveError as error:
            return Completion(text=None, error=error, request_id=request.id)

    def _completion(self, request: Request, prepared: Prepared, output: Any) -> Completion:
        """One finished RequestOutput."""
        parts = [self._apart(request, prepared, _sample(request, one)) for one in output.outputs]
        return self._joined(request, parts, usage(output))

    def _run(self, asked: Sequence[Any], settings: Sequence[Any]) -> list[Any]:
        if not asked:
            return []
        return list(self._llm.generate(asked, list(settings), use_tqdm=False, lora_request=self._adapter))

    def _show(self, config: Any, text: str, images: Sequence[Any]) -> tuple[list[int], Any]:
        """The ids as the processor expands them, and what vLLM is asked, which expands its own."""
        from vllm.transformers_utils.processor import cached_processor_from_config

        if len(images) > (most := config.multimodal_config.get_limit_per_prompt("image")):
            raise InvalidInput(f"at most {most} pictures in a prompt, not {len(images)}")
        plain = self._prompts.bare(text)
        try:
            processor: Any = cached_processor_from_config(config)
            made = processor(text=[text], images=[list(images)], add_special_tokens=False)
        except Exception as error:
            raise InvalidInput(f"the model's processor refuses this prompt: {error}"[:200]) from error
        ids = [int(token) for token in made["input_ids"][0]]
        if ids == plain:
            raise InvalidInput("the model's chat template leaves the pictures out")
        return ids, {"prompt_token_ids": plain, "multi_modal_data": {"image": list(images)}}


def _asked(prepared: Prepared) -> Any:
    return prepared.pictures or {"prompt_token_ids": prepared.ids}


def _score(pair: ScorePair, told: Any, tokenizer: Any) -> Score:
    total, greedy, rows = 0.0, True, []
    for place in range(pair.start, len(pair.tokens)):
        token, said = pair.tokens[place], told[place][pair.tokens[place]]
        total += said.logprob
        greedy = greedy and said.rank == 1
        best = token if said.rank == 1 else min(told[place], key=lambda one: told[place][one].rank)
        rows.append((token, said.logprob, best, told[place][best].logprob))
    return Score(total, pair.count, greedy, Told(tokenizer, *zip(*rows, strict=True)))


def _known(model: str, version: str, config: Any, prompts: Prompts) -> Capabilities:
    import os

    from vllm.platforms import current_platform

    exact = "float32" in str(config.dtype) or os.environ.get("VLLM_BATCH_INVARIANT") == "1"
    return replace(
        capabilities, engine=f"vllm {version}", model=model, device=current_platform.device_type,
        tasks=frozenset({"generate"}), context=config.max_model_len, chat=prompts.chat,
        thinking=prompts.thinking_modes - (set() if bounds_thoughts() else {"budget"}), template=prompts.chat,
        tools=prompts.family is not None, images=prompts.reader is not None and prompts.chat,
        logprobs=config.max_logprobs, deterministic=exact, extras=extras(),
        roles=frozenset(), normalize=False, dimensions=False,
    )  # fmt: skip


_REASONS = {"stop": "stop", "length": "length", "repetition": "stop"}


def usage(output: Any) -> Usage:
    """Tokens as vLLM counted them, all samples together."""
    return Usage(
        prompt_tokens=len(output.prompt_token_ids or ()),
        completion_tokens=sum(len(one.token_ids) for one in output.outputs),
        cached_tokens=getattr(output, "num_cached_tokens", None),
    )


def finish(reason: str | None) -> FinishReason | None:
    """vLLM's word for why an answer ended."""
    return cast("FinishReason | None", _REASONS.get(reason or ""))


def _sample(request: Request, one: Any) -> Sample:
    ids = tuple(one.token_ids)
    told = None
    if request.logprobs is not None and one.logprobs is not None:
        told = tuple(_entry(t, row, request.logprobs) for t, row in zip(ids, one.logprobs, strict=False))
    return Sample(text=one.text, finish_reason=finish(one.finish_reason), token_ids=ids, logprobs=told)


def _entry(token: int, row: Any, top: int) -> TokenLogprob:
    ranked = sorted(row.values(), key=lambda each: each.rank or 1 << 30)
    rivals = tuple((each.decoded_token or "", each.logprob) for each in ranked if (each.rank or 0) <= top)
    said = row[token]
    return TokenLogprob(said.decoded_token or "", said.logprob, token, rivals[:top])


PREFIX = "vllm_"
MINE = frozenset({
    "n", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "max_tokens", "logprobs",
    "prompt_logprobs", "output_kind", "detokenize",
})  # fmt: skip


def extras() -> frozenset[str]:
    """Settings of vLLM's own, spelled with its prefix: vllm_repetition_penalty, vllm_min_tokens, ..."""
    from vllm import SamplingParams

    names = set(SamplingParams.__struct_fields__) - MINE
    return frozenset(PREFIX + name for name in names if not name.startswith("_"))


def sampling(request: Request, prepared: Prepared, version: str, **more: Any) -> Any:
    """Everything that the request says, and nothing of the checkpoint's own sampling defaults."""
    from vllm import SamplingParams

    own = {name.removeprefix(PREFIX): value for name, value in request.extra.items()}
    try:
        return SamplingParams(
            n=1 if not request.temperature else request.n, temperature=request.temperature or 0.0,
            top_p=1.0 if request.top_p is None else request.top_p, top_k=request.top_k or 0,
            min_p=request.min_p or 0.0, seed=request.seed, max_tokens=prepared.most,
            stop=None if prepared.parted else list(request.stop) or None, logprobs=request.logprobs,
            **_structured(request, prepared, version), **own, **more,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"vLLM refuses the settings: {error}") from error


def _structured(request: Request, prepared: Prepared, version: str) -> dict[str, Any]:
    """The grammar. A thought, and calls, stand outside of what binds the answer: a structural tag says so."""
    asked: dict[str, Any] = {}
    if request.schema is not None:
        check_schema(request.schema)
        asked = {"json": dict(request.schema)}
    elif request.regex is not None:
        asked = {"regex": request.regex}
    elif request.choices is not None:
        asked = {"choice": list(request.choices)}
    if prepared.parted:
        tag = structural_tag(request, prepared, thought=True)
        asked = {"structural_tag": json.dumps(tag)} if tag else {}
    if not asked:
        return {}
    from vllm import sampling_params

    row = spelling("structured", version)
    return {row["field"]: getattr(sampling_params, row["class"])(**asked)}
