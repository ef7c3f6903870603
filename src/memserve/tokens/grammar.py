"""What an answer must keep, as one grammar: structural tags, which xgrammar and what stands on it read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from memserve.errors import InvalidInput
from memserve.protocol import Request
from memserve.tokens.calling import Calling
from memserve.tokens.prompts import Prepared

Format: TypeAlias = dict[str, Any]
_SPACES = 2
"""Between two signs of JSON: without a bound a small model emits them for ever."""


def structural_tag(request: Request, prepared: Prepared, *, thought: bool) -> Format | None:
    """The grammar of an answer; None where any text may come. With `thought` it begins with the thought."""
    bound, calling = constraint(request), prepared.calling
    if calling is not None and (calling.family.held or calling.forced):
        bound = _calls(calling, bound)
    if prepared.thinking is None or not thought or (bound is None and prepared.budget is None):
        return bound and {"type": "structural_tag", "format": bound}
    parts = [_thought(prepared), bound or {"type": "any_text"}]
    return {"type": "structural_tag", "format": {"type": "sequence", "elements": parts}}


def bounds_thoughts() -> bool:
    """Whether the xgrammar of this environment can end a thought after so many tokens."""
    try:
        from xgrammar.structural_tag import AnyTextFormat
    except ImportError:
        return False
    return "max_tokens" in AnyTextFormat.model_fields


def constraint(request: Request) -> Format | None:
    """Schema, regex or choices."""
    if request.schema is not None:
        return _json(request.schema)
    if request.regex is not None:
        return {"type": "regex", "pattern": request.regex}
    if request.choices is not None:
        return _either([_words(choice) for choice in request.choices])
    return None


def written(calling: Calling) -> list[tuple[str, Mapping[str, Any], str]]:
    """Each tool's call as the family writes it: what is before its arguments, their schema, what is after."""
    one = calling.family
    if not one.held:
        raise InvalidInput(f"tool_choice: no grammar holds calls as {one.name} writes them", hint="use auto")
    begin, middle, end = one.before[0], one.middle[0], one.after[0]
    if one.keys:
        begin, middle = f'{begin}{{"{one.keys[0]}": "', f'", "{one.keys[1]}": '
        end = "}" + end
    return [(begin + name + middle, schema, end) for name, schema in calling.tools.items()]


def _calls(calling: Calling, text: Format | None) -> Format | None:
    """Calls, or, where none must come, text that keeps its own constraint."""
    one = calling.family
    tags = [_call(calling, *parts) for parts in written(calling)]
    calls: Format = {
        "type": "tags_with_separator", "tags": tags, "separator": one.between, "at_least_one": True,
        "stop_after_first": calling.once,
    }  # fmt: skip
    if one.section[0]:
        calls = {"type": "tag", "begin": one.section[0], "content": calls, "end": one.section[1]}
        tags = [calls]
    if calling.forced:
        return calls
    if text is not None:
        return _either([calls, text])
    if not one.start:
        return {"type": "triggered_tags", "triggers": [one.triggers[0]], "tags": tags}
    other = {"type": "regex", "pattern": rf"[^\{one.triggers[0][0]}][\s\S]*"}
    return _either([calls, other]) if one.keys else None


def _call(calling: Calling, begin: str, schema: Mapping[str, Any], end: str) -> Format:
    content = _json(schema, calling.family.style)
    if calling.family.id:  # the model numbers its calls
        middle = calling.family.middle[0]
        number = {"type": "regex", "pattern": r":\d+"}
        begin = begin.removesuffix(middle)
        content = {"type": "sequence", "elements": [number, _words(middle), content]}
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def _thought(prepared: Prepared) -> Format:
    assert prepared.thinking is not None
    family = prepared.thinking.family
    words: Format = {"type": "any_text"}
    if prepared.budget is not None:
        words["max_tokens"] = prepared.budget
    opened = "" if prepared.inside else family.open
    tag = {"type": "tag", "begin": opened, "content": words, "end": list(family.closes)}
    space = {"type": "optional", "content": _words("\n\n")}
    whole: Format = {"type": "sequence", "elements": [tag, space]}
    return whole if prepared.inside else {"type": "optional", "content": whole}


def _json(schema: Mapping[str, Any], style: str = "json") -> Format:
    bound = {"max_whitespace_cnt": _SPACES} if style == "json" else {}
    return {"type": "json_schema", "json_schema": dict(schema), "style": style, **bound}


def _words(text: str) -> Format:
    return {"type": "const_string", "value": text}


def _either(formats: list[Format]) -> Format:
    return {"type": "or", "elements": formats}


def check_schema(schema: Any) -> None:
    """Refuse what is no JSON schema."""
    from jsonschema.exceptions import SchemaError  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise InvalidInput(f"schema is not a JSON schema: {error.message}") from error
