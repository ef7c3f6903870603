"""A memserve request as vLLM's SamplingParams."""

from typing import Any

from memserve.errors import InvalidInput
from memserve.protocol import Request
from memserve_vllm.dialect import spelling

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


def sampling(request: Request, limit: int, version: str, **more: Any) -> Any:
    """Everything that the request says, and nothing of the checkpoint's own sampling defaults."""
    from vllm import SamplingParams

    own = {name.removeprefix(PREFIX): value for name, value in request.extra.items()}
    try:
        return SamplingParams(
            n=1 if not request.temperature else request.n, temperature=request.temperature or 0.0,
            top_p=1.0 if request.top_p is None else request.top_p, top_k=request.top_k or 0,
            min_p=request.min_p or 0.0, seed=request.seed, stop=list(request.stop) or None, max_tokens=limit,
            logprobs=request.logprobs, **_structured(request, version), **own, **more,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"vLLM refuses the settings: {error}") from error


def _structured(request: Request, version: str) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    if request.schema is not None:
        _check_schema(request.schema)
        asked = {"json": dict(request.schema)}
    elif request.regex is not None:
        asked = {"regex": request.regex}
    elif request.choices is not None:
        asked = {"choice": list(request.choices)}
    else:
        return {}
    from vllm import sampling_params

    row = spelling("structured", version)
    return {row["field"]: getattr(sampling_params, row["class"])(**asked)}


def _check_schema(schema: Any) -> None:
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise InvalidInput(f"schema is not a JSON schema: {error.message}") from error
