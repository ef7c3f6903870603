"""What SGLang gave back, as memserve's values."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from memserve.errors import EngineFailed
from memserve.protocol import Completion, FinishReason, Request, Sample, TokenLogprob, Usage

_REASONS = {"stop": "stop", "length": "length"}


def completion(
    request: Request, outputs: Sequence[Any], model: str, decode: Callable[[int], str]
) -> Completion:
    """The outputs of one request, a sample each."""
    broken = next((o for o in outputs if reason(o)[0] == "abort"), None)
    if broken is not None:
        words = str(broken["meta_info"]["finish_reason"].get("message", "aborted"))
        return Completion(text=None, error=EngineFailed(f"SGLang gave the request up: {words}"))
    samples = tuple(_sample(request, output, decode) for output in outputs)
    samples *= request.n // len(samples)  # n greedy answers are one answer
    first = samples[0]
    return Completion(
        text=first.text, finish_reason=first.finish_reason, token_ids=first.token_ids,
        logprobs=first.logprobs, usage=usage(outputs), samples=samples if len(samples) > 1 else (),
        model=model, request_id=request.id,
    )  # fmt: skip


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
