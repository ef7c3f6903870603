"""What vLLM gave back, as memserve's values."""

from typing import Any, cast

from memserve.protocol import Completion, FinishReason, Request, Sample, TokenLogprob, Usage

_REASONS = {"stop": "stop", "length": "length", "repetition": "stop"}


def completion(request: Request, output: Any, model: str) -> Completion:
    """One finished RequestOutput."""
    samples = tuple(_sample(request, one) for one in output.outputs)
    samples *= request.n // len(samples)  # n greedy answers are one answer, which vLLM gives once
    first = samples[0]
    return Completion(
        text=first.text, finish_reason=first.finish_reason, token_ids=first.token_ids,
        logprobs=first.logprobs, usage=usage(output), samples=samples if len(samples) > 1 else (),
        model=model, request_id=request.id,
    )  # fmt: skip


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
