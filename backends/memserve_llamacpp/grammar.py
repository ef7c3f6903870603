"""What an answer must keep, in llama.cpp's own form of grammars."""

from __future__ import annotations

import json
from typing import Any

from memserve.errors import InvalidInput, Unsupported
from memserve.protocol import Request
from memserve.tokens.calling import Calling
from memserve.tokens.grammar import written
from memserve.tokens.prompts import Prepared


def grammar_of(request: Request, prepared: Prepared) -> Any:
    """A `LlamaGrammar`, or None for a free answer: of calls that may come or not, none is held."""
    calling = prepared.calling
    if request.schema is None and not request.choices and not (calling and calling.forced):
        return None
    from llama_cpp import LlamaGrammar

    try:
        return LlamaGrammar.from_string(_text(request, calling), verbose=False)
    except (ValueError, KeyError, TypeError, AssertionError, AttributeError) as error:
        raise InvalidInput(f"llama.cpp cannot follow the schema: {error}") from error


def _text(request: Request, calling: Calling | None) -> str:
    from llama_cpp.llama_grammar import SchemaConverter

    rules = SchemaConverter(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
    parts = [_calls(rules, calling)] if calling else []
    if not (calling and calling.forced):
        parts += [_word(choice) for choice in request.choices or ()]
        if request.schema is not None:
            parts.append(
                rules.visit(rules.resolve_refs(json.loads(json.dumps(request.schema)), "stdin"), "answer")
            )
    rules._rules["root"] = " | ".join(parts)
    return str(rules.format_grammar())


def _calls(rules: Any, calling: Calling) -> str:
    """One call or several, as the model's family writes them."""
    family = calling.family
    if family.pair:
        raise Unsupported(
            "llamacpp", "tool_choice", f"llama.cpp cannot hold calls as {family.name} writes them"
        )
    calls = []
    for place, (begin, schema, end) in enumerate(written(calling)):
        known = rules.resolve_refs(json.loads(json.dumps(schema)), "stdin")
        number = " [0-9]+ " if family.id else " "
        begin, middle = (
            (begin.removesuffix(family.middle[0]) + ":", family.middle[0]) if family.id else (begin, "")
        )
        calls.append(
            f"{_word(begin)}{number}{_word(middle)} {rules.visit(known, f'tool{place}')} {_word(end)}"
        )
    rules._rules["call"] = " | ".join(calls)
    more = "" if calling.once else f" ({_word(family.between)} call)*"
    return f"{_word(family.section[0])} call{more} {_word(family.section[1])}"


def _word(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
