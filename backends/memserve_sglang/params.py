"""A memserve request as SGLang's sampling parameters."""

import json
import re
from typing import Any

from memserve.errors import InvalidInput
from memserve.protocol import Request

PREFIX = "sglang_"
EXTRAS = frozenset({
    "sglang_frequency_penalty", "sglang_presence_penalty", "sglang_repetition_penalty",
    "sglang_min_new_tokens", "sglang_ignore_eos", "sglang_stop_token_ids", "sglang_ebnf",
    "sglang_structural_tag",
})  # fmt: skip


def sampling(request: Request, limit: int, index: int = 0) -> dict[str, Any]:
    """Everything that the request says; SGLang's own default length is 128."""
    own = {name.removeprefix(PREFIX): value for name, value in request.extra.items()}
    asked: dict[str, Any] = {
        "max_new_tokens": limit,
        "temperature": request.temperature or 0.0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "top_k": request.top_k or -1,
        "min_p": request.min_p or 0.0,
        **_structured(request),
        **own,
    }
    if request.stop:
        asked["stop"] = list(request.stop)
    if request.seed is not None:
        asked["sampling_seed"] = request.seed + index
    return asked


def _structured(request: Request) -> dict[str, str]:
    if request.schema is not None:
        _check_schema(request.schema)
        return {"json_schema": json.dumps(request.schema)}
    if request.regex is not None:
        return {"regex": request.regex}
    if request.choices is not None:
        return {"regex": "(" + "|".join(re.escape(choice) for choice in request.choices) + ")"}
    return {}


def _check_schema(schema: Any) -> None:
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise InvalidInput(f"schema is not a JSON schema: {error.message}") from error
