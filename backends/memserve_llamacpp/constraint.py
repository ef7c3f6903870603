"""Schemas and choices as llama.cpp's grammars."""

import json
from typing import Any

from memserve.errors import InvalidInput
from memserve.protocol import Request


def grammar_of(request: Request) -> Any:
    """A `LlamaGrammar`, or None for a free answer."""
    if request.schema is None and not request.choices:
        return None
    from llama_cpp import LlamaGrammar

    if request.choices:
        words = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in request.choices)
        return LlamaGrammar.from_string(f"root ::= {words}", verbose=False)
    try:
        return LlamaGrammar.from_json_schema(json.dumps(request.schema), verbose=False)
    except (ValueError, KeyError, TypeError, AssertionError, AttributeError) as error:
        raise InvalidInput(f"llama.cpp cannot follow the schema: {error}") from error
